//! Randomness that a number replays: SplitMix64 (Steele, Lea, Flood 2014), small enough to be read.

/// A generator. The same seed and the same questions give the same answers, on every machine and for ever.
#[derive(Debug, Clone)]
pub(crate) struct Dice(u64);

impl Dice {
    /// One generator per thing that is decided: drawing once more for one of them does not change the others.
    pub(crate) fn new(seed: u64, what: &str, number: u64) -> Self {
        let mut dice = Self(seed);
        for part in what.bytes().map(u64::from).chain([number]) {
            dice.0 = dice.next() ^ part;
        }
        dice
    }

    pub(crate) fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        z ^ (z >> 31)
    }

    /// From `from` up to, and without, `to`.
    pub(crate) fn between(&mut self, from: u64, to: u64) -> u64 {
        from + self.next() % (to - from).max(1)
    }

    pub(crate) fn chance(&mut self, percent: u64) -> bool {
        self.between(0, 100) < percent
    }

    pub(crate) fn shuffle<T>(&mut self, items: &mut [T]) {
        for last in (1..items.len()).rev() {
            let other = self.between(0, last as u64 + 1) as usize;
            items.swap(last, other);
        }
    }
}

#[test]
fn a_seed_gives_the_same_numbers_on_every_machine() {
    // The first values of the reference implementation for the seed 1234567.
    let mut dice = Dice(1_234_567);
    assert_eq!([dice.next(), dice.next()], [6_457_827_717_110_365_317, 3_203_168_211_198_807_973]);
    let roll = |number| Dice::new(7, "fault", number).next();
    assert_eq!(roll(1), roll(1));
    assert_ne!(roll(1), roll(2));
}
