use super::*;

/// S: the result is saved, U: kept up to date, C: CONDSTORE.
fn effects(segments: &[&str]) -> String {
    let first = segments[0].as_bytes();
    let mut effects = Effects::of(&Head::parse(first).unwrap(), first);
    for segment in &segments[1..] {
        effects.more(segment.as_bytes());
    }
    let flags = [(effects.saves_result, 'S'), (effects.context, 'U'), (effects.condstore, 'C')];
    flags.iter().filter(|(set, _)| *set).map(|(_, letter)| *letter).collect()
}

#[test]
fn effects_of_commands() {
    for (segments, expected) in [
        // RFC 5182 2.2.
        (&["A282 SEARCH RETURN (SAVE) FLAGGED SINCE 1-Feb-1994\r\n"][..], "S"),
        (&["A301 UID SEARCH RETURN (SAVE) SMALLER 4096\r\n"], "S"),
        (&["P282 SEARCH RETURN (MIN MAX SAVE) NOT KEYWORD $Junk\r\n"], "S"),
        (&["A283 FETCH $ (UID INTERNALDATE FLAGS)\r\n"], ""),
        (&["A SEARCH SAVE\r\n"], ""),
        (&["A SEARCH RETURN () ALL\r\n"], ""),
        (&["A search return (all save) subject {4}\r\n", " unseen\r\n"], "S"),
        // RFC 5267 4.
        (&["B01 SORT RETURN (PARTIAL 1:10 UPDATE) (DATE) UTF-8 UNDELETED\r\n"], "U"),
        (&["B02 SEARCH RETURN (CONTEXT) UNDELETED\r\n"], ""),
        (&["B04 CANCELUPDATE \"B01\"\r\n"], "U"),
        // RFC 7162 3.1.
        (&["a SELECT INBOX (CONDSTORE)\r\n"], "C"),
        (&["a EXAMINE {9}\r\n", " (CONDSTORE)\r\n"], "C"),
        (&["a SELECT CONDSTORE\r\n"], ""),
        (&["a STATUS blurdybloop (UIDNEXT MESSAGES HIGHESTMODSEQ)\r\n"], "C"),
        (&["a STATUS HIGHESTMODSEQ (UIDNEXT)\r\n"], ""),
        (&["a LIST \"\" % RETURN (STATUS (MESSAGES HIGHESTMODSEQ))\r\n"], "C"),
        (&["s100 UID FETCH 1:* (FLAGS) (CHANGEDSINCE 12345)\r\n"], "C"),
        (&["s100 UID FETCH 300:500 (FLAGS) (CHANGEDSINCE 12345 VANISHED)\r\n"], "C"),
        (&["a FETCH 1:3 (MODSEQ)\r\n"], "C"),
        (&["a FETCH 1:3 modseq\r\n"], "C"),
        (&["a FETCH 1:3 (BODY.PEEK[HEADER.FIELDS (MODSEQ)]<0.5> FLAGS)\r\n"], ""),
        (&["a FETCH 1:3 (BODY.PEEK[HEADER.FIELDS (X)] MODSEQ)\r\n"], "C"),
        (&["a103 UID STORE 6,4,8 (UNCHANGEDSINCE 12121230045) +FLAGS.SILENT (\\Deleted)\r\n"], "C"),
        (&["d105 STORE 7,5,9 (UNCHANGEDSINCE 320162338)\r\n"], "C"),
        (&["a STORE 1 +FLAGS (MODSEQ)\r\n"], ""),
        (&["a SEARCH MODSEQ \"/flags/\\\\draft\" all 620162338\r\n"], "C"),
        (&["t SEARCH OR NOT MODSEQ 720162338 LARGER 50000\r\n"], "C"),
        (&["t SEARCH SUBJECT MODSEQ FROM {6}\r\n", " TO x\r\n"], ""),
        (&["t SEARCH HEADER X-A {6}\r\n", " MODSEQ 5\r\n"], "C"),
        (&["t SEARCH HEADER {6}\r\n", " MODSEQ\r\n"], ""),
        (&["t SEARCH (BODY \"x\" MODSEQ 5)\r\n"], "C"),
        (&["t SORT (SUBJECT MODSEQ) UTF-8 MODSEQ 21\r\n"], "C"),
        (&["t ENABLE QRESYNC\r\n"], "C"),
        (&["t ENABLE UTF8=ACCEPT\r\n"], ""),
        (&["t APPEND MODSEQ {5}\r\n"], ""),
        (&["t SEARCH SUBJECT \"MODSEQ\r\n"], ""),
    ] {
        assert_eq!(effects(segments), expected, "{segments:?}");
    }
}
