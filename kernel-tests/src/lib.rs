//! What only a real kernel can show.
