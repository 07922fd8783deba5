//! Several pushes at once.

use kernel_tests::evil::{self, Evil, Hello, Last, ROOT, meta};
use kernel_tests::invariant::assert_between;
use kernel_tests::scene::slash;
use kernel_tests::{Chance, Need, Running, Scene, Tree, content, guard, on_routes, plant, require};

fn plant_tree(root: &std::path::Path, version: u64) {
    for dir in 0..12 {
        for file in 0..25 {
            let bytes = content::noise(version * 1000 + file, 200 + 130 * (file as usize));
            plant::file(root.join(format!("d{dir}/s{}/f{file}", file % 3)), bytes);
        }
    }
    plant::file(root.join("large"), content::noise(version, 6 << 20));
}

/// All of one source to one destination.
fn push_together(scene: &Scene, count: usize) {
    let running: Vec<Running> = (0..count)
        .map(|_| scene.push::<&str>(&[]).start())
        .collect();
    for push in running {
        push.wait().ok();
    }
}

on_routes! { embedded, tcp, unix, ssh;
fn pushes_of_one_tree_to_one_place_all_succeed(scene) {
    plant_tree(&scene.src(), 1);
    for count in [2, 4, 2, 4] {
        if scene.dst().exists() {
            plant::remove(scene.dst());
        }
        push_together(scene, count);
        scene.assert_no_litter();
        let there = Tree::read(scene.dst());
        for (path, node) in Tree::read(scene.src()).entries() {
            let arrived = there.find(&path);
            assert!(arrived.is_some_and(|arrived| arrived.digest == node.digest), "{path:?}");
        }
        scene.push::<&str>(&[]).run().ok();
        scene.assert_arrived();
    }
}
}

on_routes! { embedded, tcp, unix, ssh;
fn pushes_of_two_trees_to_one_place_leave_whole_files_of_either(scene) {
    let other = scene.path().join("other");
    plant_tree(&scene.src(), 1);
    plant_tree(&other, 2);
    for _ in 0..4 {
        let one = scene.push::<&str>(&[]).start();
        let two = scene.push_to("dst").from(slash(&other)).start();
        one.wait().ok();
        two.wait().ok();
        let now = Tree::read(scene.dst());
        assert_between(&Tree::read(scene.src()), &Tree::read(&other), &now, "two at once");
        scene.assert_no_litter();
    }
    scene.push(&["--delete"]).run().ok();
    scene.assert_arrived();
}
}

on_routes! { embedded, tcp, unix, ssh;
fn a_killed_push_does_not_disturb_another_into_the_same_place(scene) {
    // rsync's --delete takes the other's temporary files for extra ones.
    require!(Need::Sy);
    plant_tree(&scene.src(), 1);
    let mut chance = Chance::new();
    for _ in 0..8 {
        if scene.dst().exists() {
            plant::remove(scene.dst());
        }
        let victim = scene.push::<&str>(&[]).start();
        let others: Vec<Running> = (0..2).map(|_| scene.push(&["--delete"]).start()).collect();
        std::thread::sleep(std::time::Duration::from_micros(chance.below(60_000)));
        victim.kill();
        victim.wait();
        for push in others {
            push.wait().ok();
        }
        scene.push(&["--delete"]).run().ok();
        guard::wait_until("temporary files to go", || {
            Tree::read(scene.export()).litter().is_empty()
        });
        scene.push(&["--delete"]).run().ok();
        scene.assert_arrived();
    }
}
}

on_routes! { embedded, tcp, unix, ssh;
fn pushes_to_a_place_and_to_one_inside_it_do_not_collide(scene) {
    plant_tree(&scene.src(), 1);
    let inner = scene.src().join("d3");
    for _ in 0..4 {
        plant::dir(scene.dst());
        plant::remove(scene.dst());
        plant::dir(scene.dst());
        let whole = scene.push::<&str>(&[]).start();
        let part = scene.push_to("dst/d3").from(slash(&inner)).start();
        whole.wait().ok();
        part.wait().ok();
        scene.assert_no_litter();
        scene.push::<&str>(&[]).run().ok();
        scene.assert_arrived();
    }
}
}

on_routes! { tcp, unix;
fn many_pushes_to_many_places_all_succeed(scene) {
    plant_tree(&scene.src(), 1);
    let running: Vec<Running> = (0..16)
        .map(|number| scene.push_to(&format!("to-{number}")).from(slash(scene.src())).start())
        .collect();
    for push in running {
        push.wait().ok();
    }
    let expected = scene.expected(scene.src());
    for number in 0..16 {
        let there = Tree::read(scene.export().join(format!("to-{number}")));
        expected.assert_equals(&there, "one of many");
    }
}
}

on_routes! { tcp;
fn two_live_sessions_of_one_number_do_not_meet(scene) {
    require!(Need::Sy);
    let port = scene.server().port();
    let begun = |name: &[u8]| {
        let mut evil = Evil::connect(port);
        evil.send(&Hello { session: 7, ..Hello::to("m", "dst") }.frame());
        evil.send(&evil::pack(&[evil::op_begin(ROOT, name, 1, meta(evil::FILE), 4)]));
        evil
    };
    let finish = |mut evil: Evil, content: &[u8]| {
        evil.send(&evil::data(1, 0, content));
        evil.send(&evil::end(1, 0, evil::file_digest(&[(0, content)])));
        evil.send(&evil::done());
        assert_eq!(evil.last(), Last::Report(0, 1, 0));
    };
    let first = begun(b"first");
    guard::wait_until("the first session's temp file", || {
        !Tree::read(scene.export()).litter().is_empty()
    });
    finish(begun(b"second"), b"2222");
    finish(first, b"1111");
    for (name, content) in [("first", "1111"), ("second", "2222")] {
        let there = std::fs::read_to_string(scene.dst().join(name));
        assert_eq!(there.expect("it arrived"), content);
    }
    scene.assert_no_litter();
}
}

on_routes! { tcp;
fn what_is_under_way_at_a_module_is_left_alone_by_another_push_to_it(scene) {
    require!(Need::Sy);
    let port = scene.server().port();
    let mut evil = Evil::connect(port);
    evil.send(&Hello::to("m", "").frame());
    evil.send(&evil::pack(&[evil::op_begin(ROOT, b"large", 1, meta(evil::FILE), 4)]));
    guard::wait_until("its temp file", || !Tree::read(scene.export()).litter().is_empty());
    plant::file(scene.src().join("small"), "text");
    scene.push_to("").from(slash(scene.src())).run().ok();
    evil.send(&evil::data(1, 0, b"1111"));
    evil.send(&evil::end(1, 0, evil::file_digest(&[(0, b"1111")])));
    evil.send(&evil::done());
    assert_eq!(evil.last(), Last::Report(0, 1, 0));
    for (name, content) in [("large", "1111"), ("small", "text")] {
        let there = std::fs::read_to_string(scene.export().join(name));
        assert_eq!(there.expect("it arrived"), content);
    }
}
}

on_routes! { tcp, unix;
fn pushes_to_one_module_each_see_all_that_is_there(scene) {
    require!(Need::Sy);
    plant::file(scene.src().join("file"), "text");
    for _ in 0..3 {
        for number in 0..9000 {
            plant::file(scene.export().join(format!("extra-{number}")), "");
        }
        let push = scene.push_to("").from(slash(scene.src())).option("--delete");
        let running: Vec<Running> = (0..4).map(|_| push.start()).collect();
        for push in running {
            push.wait().ok();
        }
        let expected = scene.expected(scene.src());
        expected.assert_equals(&Tree::read(scene.export()), "four at once");
    }
}
}

on_routes! { embedded, tcp, unix;
fn pushes_that_delete_the_same_things_leave_nothing_of_them(scene) {
    require!(Need::Sy);
    plant::file(scene.src().join("file"), "text");
    for _ in 0..3 {
        for number in 0..4000 {
            plant::file(scene.dst().join(format!("a/b{}/{number}", number % 3)), "");
        }
        let one = scene.push(&["--delete"]).start();
        let two = scene.push(&["--delete"]).start();
        one.wait().ok();
        two.wait().ok();
        scene.assert_arrived();
    }
}
}
