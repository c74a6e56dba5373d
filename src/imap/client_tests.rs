use tokio::io::DuplexStream;

use super::*;

/// A client whose server says all this, whatever it is asked.
async fn told(said: &str) -> Client<DuplexStream> {
    let (ours, mut theirs) = tokio::io::duplex(1 << 20);
    theirs.write_all(said.as_bytes()).await.unwrap();
    // It stays open for as long as we ask.
    tokio::spawn(async move { while let Ok(1..) = theirs.read(&mut [0; 1024]).await {} });
    Client::over(ours)
}

async fn names(said: &str) -> Result<Vec<String>, ImapError> {
    let mut names = Vec::new();
    let take = |untagged: &Untagged<'_>| {
        if let Untagged::List(list) = untagged {
            names.push(String::from_utf8(list.name.to_vec()).unwrap());
        }
    };
    told(said).await.command(b"LIST \"\" *", take).await?;
    Ok(names)
}

#[tokio::test]
async fn responses_with_literals_are_read_whole() {
    let said = "* LIST () \"/\" {5}\r\na\r\nbc\r\n* LIST () \"/\" d\r\n* OK {5}\r\n* LIST () {1}\r\n/ {1}\r\ne\r\na1 OK done\r\n";
    assert_eq!(names(said).await.unwrap(), ["a\r\nbc", "d", "e"]);
}

#[tokio::test]
async fn what_is_too_long_is_passed_over() {
    let long = "x".repeat(RESPONSE);
    let said = format!(
        "* LIST () \"/\" {long}\r\n* LIST () \"/\" {{{RESPONSE}}}\r\n{long}\r\n* LIST () \"/\" a\r\na1 OK [ALERT] done\r\n"
    );
    assert_eq!(names(&said).await.unwrap(), ["a"]);
}

#[tokio::test]
async fn a_refusal_has_its_code_and_its_words() {
    for (said, bad, code, text) in [
        ("a1 NO [nonexistent] There is none\r\n", false, Some("NONEXISTENT"), "There is none"),
        ("a1 NO [REFERRAL imap://x/] elsewhere\r\n", false, Some("REFERRAL"), "elsewhere"),
        ("a1 BAD what?\r\n", true, None, "what?"),
        ("a1 NO [READ-ONLY] no\r\n", false, None, "no"),
        ("a1 NO\r\n", false, None, ""),
    ] {
        let expected = Refusal { bad, code: code.map(str::to_owned), text: text.to_owned() };
        let error = names(said).await.unwrap_err();
        assert!(matches!(&error, ImapError::Refused(refusal) if *refusal == expected), "{said:?}: {error:?}");
    }
}

#[tokio::test]
async fn more_than_was_asked_for_is_an_error() {
    for said in ["a1 OK done\r\n* LIST () \"/\" late\r\n", "a1 OK done\r\n* LI"] {
        assert!(matches!(names(said).await, Err(ImapError::Protocol(_))), "{said:?}");
    }
    let endless = "* OK\r\n".repeat(RESPONSES + 1);
    let (ours, mut theirs) = tokio::io::duplex(endless.len());
    theirs.write_all(endless.as_bytes()).await.unwrap();
    assert!(matches!(Client::over(ours).command(b"NOOP", |_| {}).await, Err(ImapError::Protocol(_))));
}

#[tokio::test]
async fn only_ok_is_a_greeting() {
    let greeted = |said: &'static str| Client::greeted(tokio::io::empty(), said.as_bytes()).is_ok();
    assert!(greeted("* OK hello\r\n"));
    for said in ["* PREAUTH hello\r\n", "* BYE\r\n", "* OK hel", "", "* OK hello\r\n* OK [ALERT] more\r\n", "a1 OK hello\r\n"] {
        assert!(!greeted(said), "{said:?}");
    }
    assert!(told("* OK hello\r\n").await.greeting().await.is_ok());
    assert!(told("* PREAUTH hello\r\n").await.greeting().await.is_err());
}
