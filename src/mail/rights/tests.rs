use super::*;

#[test]
fn letters_are_read_in_any_order_and_shown_in_one() {
    assert_eq!(Rights::parse("srl").unwrap().to_string(), "lrs");
    assert_eq!(Rights::parse("cd").unwrap().to_string(), "kxte");
    assert_eq!(Rights::parse("lq"), Err(InvalidRights('q')));
    assert_eq!(Rights::parse_known("lnq9").to_string(), "l9");
    assert_eq!(Rights::ALL.to_string(), "lrswipkxtea");
    assert_eq!(Rights::from_bits(Rights::ALL.bits()), Rights::ALL);
}
