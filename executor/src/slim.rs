//! Lets go of memory that is not needed while nothing much happens: a guard only waits, and an
//! executor whose node is up needs little of what brought it up.
//!
//! Two kinds: pages of the program itself, which are read from its file again when they are needed,
//! and free pages of the heap, which the allocator keeps for the next unpacking of a payload or the
//! next list of a hundred pods.

use std::fs;
use std::os::raw::c_void;

use nix::libc;
use rustix::mm::{Advice, madvise};

/// From the start of the program on: one heap for all threads. The few that block now and then
/// would keep one of their own each, with what the largest of their tasks ever needed.
pub fn share_one_heap() {
    // SAFETY: sets a number inside the allocator; called before there is a second thread.
    #[allow(unsafe_code)]
    #[cfg(target_env = "gnu")]
    let _ = unsafe { libc::mallopt(libc::M_ARENA_MAX, 1) };
}

/// Drops resident pages of read-only mappings of files, and free ones of the heap. Failing changes
/// nothing.
pub fn slim() {
    give_back_heap();
    drop_program();
}

fn give_back_heap() {
    // SAFETY: has no preconditions; it touches only what is free, under the allocator's own locks.
    #[allow(unsafe_code)]
    #[cfg(target_env = "gnu")]
    let _ = unsafe { libc::malloc_trim(0) };
}

fn drop_program() {
    let Ok(text) = fs::read_to_string("/proc/self/smaps") else {
        return;
    };
    for (start, length) in droppable(&text) {
        let start = std::ptr::with_exposed_provenance_mut::<c_void>(start);
        // SAFETY: the range is one whole mapping of a file, without write access and without
        // pages of our own in it (relocated ones would be lost), so after DONTNEED every read
        // yields the very same bytes from the file. A running program's file cannot be written.
        #[allow(unsafe_code)]
        let _ = unsafe { madvise(start, length, Advice::LinuxDontNeed) };
    }
}

/// Mappings of files, not writable, in which no page is anonymous.
fn droppable(smaps: &str) -> Vec<(usize, usize)> {
    let mut found = Vec::new();
    let mut current = None;
    for line in smaps.lines() {
        let mut words = line.split_whitespace();
        let first = words.next().unwrap_or_default();
        if let Some((start, end)) = first.split_once('-') {
            let parsed = usize::from_str_radix(start, 16)
                .ok()
                .zip(usize::from_str_radix(end, 16).ok());
            let access = words.next().unwrap_or_default();
            let path = words.nth(3).unwrap_or_default();
            let fits = access.starts_with('r') && !access.contains('w') && path.starts_with('/');
            current = parsed
                .filter(|_| fits)
                .and_then(|(start, end)| Some((start, end.checked_sub(start)?)));
        } else if first == "Anonymous:"
            && let Some(range) = current.take()
            && words.next() == Some("0")
        {
            found.push(range);
        }
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_clean_read_only_mappings_of_files_are_dropped() {
        let smaps = "\
00001000-00002000 r--p 00000000 fe:00 11 /usr/bin/x
Rss: 4 kB
Anonymous: 0 kB
00002000-00004000 r-xp 00001000 fe:00 11 /usr/bin/x
Anonymous: 0 kB
00004000-00005000 r--p 00003000 fe:00 11 /usr/bin/x
Anonymous: 4 kB
00005000-00006000 rw-p 00004000 fe:00 11 /usr/bin/x
Anonymous: 0 kB
00007000-00008000 r--p 00000000 00:00 0 [vvar]
Anonymous: 0 kB
";
        assert_eq!(droppable(smaps), [(0x1000, 0x1000), (0x2000, 0x2000)]);
    }

    #[test]
    fn the_program_goes_on_after_it() {
        slim();
        assert_eq!("still".to_uppercase(), "STILL");
    }
}
