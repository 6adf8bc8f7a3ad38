//! The directory, its files, and what goes wrong with them.

use std::fs::File;
use std::os::unix::fs::PermissionsExt;

use super::*;

#[test]
fn a_full_disk_is_told_marked_and_mended() {
    let (dir, clock) = (tempfile::tempdir().unwrap(), Hands::new());
    let (journal, _) = reopen(dir.path(), &clock);
    journal.writer().write_into(File::options().write(true).open("/dev/full").unwrap());
    let lost = journal.writing(&lane("a"), 1);
    assert!(journal.is_failing());
    journal.written(&lost);
    let start = time::now();
    while journal.is_failing() {
        assert!(start.elapsed() < Duration::from_secs(20), "never mended");
        std::thread::sleep(Duration::from_millis(5));
    }
    let copy = killed(&journal, dir.path());
    let (_again, found) = reopen(copy.path(), &clock);
    assert_eq!((ages(&found, "a"), found.unknown_until), (vec![(0, 1)], None));
    drop(lost);
}

#[test]
fn a_journal_that_was_marked_makes_windows_full() {
    let (dir, clock) = (tempfile::tempdir().unwrap(), Hands::new());
    let (journal, _) = reopen(dir.path(), &clock);
    journal.close();
    let mut bytes = std::fs::read(dir.path().join("journal")).unwrap();
    bytes[usize::try_from(record::INCOMPLETE_AT).unwrap()] = 1;
    let (_again, found) = reopen(copied(&bytes).path(), &clock);
    assert!(found.unknown_until.is_some());
}

#[test]
fn a_second_process_is_refused_by_name_until_the_first_has_gone() {
    let dir = tempfile::tempdir().unwrap();
    let (first, _) = Journal::open(dir.path(), KEEP).unwrap();
    let refusal = Journal::open(dir.path(), KEEP).unwrap_err().to_string();
    let dir_said = format!("server.state_dir = {:?} is in use by process {}", dir.path(), std::process::id());
    assert!(refusal.starts_with(&dir_said), "{refusal}");
    drop(first);
    Journal::open(dir.path(), KEEP).unwrap();
}

#[test]
fn a_directory_that_cannot_be_used_is_named() {
    let file = tempfile::NamedTempFile::new().unwrap();
    let refusal = Journal::open(&file.path().join("state"), KEEP).unwrap_err().to_string();
    assert!(refusal.starts_with("server.state_dir = ") && refusal.contains("cannot create it"), "{refusal}");
    let dir = tempfile::tempdir().unwrap();
    std::fs::set_permissions(dir.path(), PermissionsExt::from_mode(0o500)).unwrap();
    // Whom permissions do not bind gets what nobody may write.
    let root = rustix::process::geteuid().is_root();
    let refusal = Journal::open(if root { Path::new("/proc") } else { dir.path() }, KEEP).unwrap_err().to_string();
    assert!(refusal.starts_with("server.state_dir = ") && refusal.contains("cannot open its lock"), "{refusal}");
}

#[test]
fn a_newer_or_foreign_file_is_refused_and_stays_as_it_is() {
    let (dir, clock) = (tempfile::tempdir().unwrap(), Hands::new());
    let (journal, _) = reopen(dir.path(), &clock);
    journal.close();
    let mut bytes = std::fs::read(dir.path().join("journal")).unwrap();
    bytes[16] = 2;
    for (bytes, said) in
        [(&bytes[..], "has format 2, this version of tidegate knows up to 1"), (b"", "is not a journal")]
    {
        let copy = copied(bytes);
        let refusal = Journal::open(copy.path(), KEEP).unwrap_err().to_string();
        assert!(refusal.contains(said) && refusal.contains("/journal"), "{refusal}");
        assert_eq!(std::fs::read(copy.path().join("journal")).unwrap(), bytes);
    }
}

#[test]
fn nobody_else_can_read_it_and_no_key_is_in_it() {
    let parent = tempfile::tempdir().unwrap();
    let dir = parent.path().join("deep").join("state");
    let (journal, _) = Journal::open(&dir, KEEP).unwrap();
    let key = LaneId { upstream: "up".into(), key: KeyId::of("sk-secret") };
    let entry = journal.writing(&key, 1);
    journal.refunded(entry);
    let mode = |path: &Path| std::fs::metadata(path).unwrap().permissions().mode() & 0o777;
    assert_eq!([mode(&dir), mode(&dir.join("journal")), mode(&dir.join("lock"))], [0o700, 0o600, 0o600]);
    let bytes = std::fs::read(dir.join("journal")).unwrap();
    assert!(!bytes.windows(9).any(|window| window == b"sk-secret"));
}
