//! Distances, tests and corrections. `p` and `q` are shares by bin (reference, current), `n` and `m` are counts.
//! Golden values of Evidently, NannyML and SciPy stand in `tests/golden.rs`.

mod distance;
mod ks;
mod test;

pub use distance::{
    contributions, hellinger, jensen_shannon_base2, jensen_shannon_divergence_base2, jensen_shannon_natural,
    l_infinity, normalise, psi, psi_critical, psi_floored, wasserstein, wasserstein_error,
};
pub use ks::{Interval, ks_asymptotic_p, ks_exact_p, ks_interval, ks_statistic};
pub use test::{
    ChiSquare, Proportions, benjamini_hochberg, chi_square_two_sample, chi_square_vs_expected, proportions,
    welch_t_p, wilson_interval,
};
