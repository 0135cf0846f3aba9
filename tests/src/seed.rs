//! Choices that look random and can be made again.

/// A generator of choices. The same seed gives the same ones.
#[derive(Clone, Debug)]
pub struct Seed(u64);

impl Seed {
    /// Takes the seed from the environment variable `CHARTER_SEED`, or draws one, and says on standard error how to use it again.
    pub fn new(test: &str) -> Self {
        let given = std::env::var("CHARTER_SEED").ok().and_then(|text| text.parse().ok());
        let drawn = || {
            let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
            now.map_or(1, |since| u64::from(since.subsec_nanos()) ^ since.as_secs())
        };
        let seed = given.unwrap_or_else(drawn);
        eprintln!("seed {seed}; again with: CHARTER_SEED={seed} cargo test -p tests {test}");
        Self(seed)
    }

    /// The next number below a bound.
    pub fn below(&mut self, bound: u64) -> u64 {
        // SplitMix64's constants: every bit of the state reaches every bit of the result.
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        (mixed ^ (mixed >> 31)) % bound.max(1)
    }
}
