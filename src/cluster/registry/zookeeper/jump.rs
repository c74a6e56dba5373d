//! Which of several ensembles a key belongs to.

/// The jump consistent hash (Lamping and Veach, 2014): spreads keys evenly, and adding the n-th ensemble at the
/// end moves only one key in n. The same in every process and version.
///
/// `buckets` of 0 counts as 1.
pub fn jump(mut hash: u64, buckets: u32) -> u32 {
    let mut chosen: i64 = 0;
    let mut next: i64 = 0;
    while next < i64::from(buckets) {
        chosen = next;
        hash = hash.wrapping_mul(2_862_933_555_777_941_757).wrapping_add(1);
        let step = (1u64 << 31) as f64 / ((hash >> 33) + 1) as f64;
        next = ((chosen + 1) as f64 * step) as i64;
    }
    u32::try_from(chosen).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn the_choice_is_pinned() {
        // Publishers and nodes of different versions must agree: these numbers must never change.
        let chosen: Vec<u32> = [0u64, 1, 0xdead_beef, u64::MAX].iter().map(|&hash| jump(hash, 1000)).collect();
        assert_eq!(chosen, [0, 549, 285, 313]);
    }

    #[test]
    fn keys_are_spread_evenly() {
        let mut counts = [0u32; 4];
        for n in 0..40_000u64 {
            counts[jump(n.wrapping_mul(0x9e37_79b9_7f4a_7c15), 4) as usize] += 1;
        }
        assert!(counts.iter().all(|count| (9_500..=10_500).contains(count)), "{counts:?}");
    }

    proptest! {
        #[test]
        fn a_new_ensemble_only_takes(hash: u64, buckets in 1u32..64) {
            let (before, after) = (jump(hash, buckets), jump(hash, buckets + 1));
            prop_assert!(before < buckets);
            prop_assert!(after == before || after == buckets);
        }

        #[test]
        fn one_ensemble_takes_all(hash: u64) {
            prop_assert_eq!((jump(hash, 1), jump(hash, 0)), (0, 0));
        }
    }
}
