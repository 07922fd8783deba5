//! What a process has used, as `/proc` tells it.

/// User and system time of a process so far, in clock ticks; of one that has ended, until it is
/// reaped.
pub fn cpu_ticks(pid: u32) -> u64 {
    let text = std::fs::read_to_string(format!("/proc/{pid}/stat"));
    let text = text.unwrap_or_default();
    // The name in parentheses may hold blanks; utime and stime are the 14th and 15th word.
    let rest = text.rsplit_once(')').map_or("", |(_, rest)| rest);
    let words: Vec<&str> = rest.split_whitespace().collect();
    [11, 12]
        .iter()
        .filter_map(|&at| words.get(at)?.parse::<u64>().ok())
        .sum()
}
