//! Rows, repeats, revisions, replays and twins, and what is said of a database that is not the one it was.
//! They exist because each rule here decides between an event that is lost and one that is there twice.
