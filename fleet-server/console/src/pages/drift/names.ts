/** Names of measures and bins. Names of tests are the same in every language. */
import type { FeatureDrift, Measure } from '../../api/drift-report';
import type { Schemas } from '../../api/client';

const TEST_NAMES: Readonly<Record<string, string>> = {
  js_natural: 'Jensen-Shannon (ln)',
  js_base2: 'Jensen-Shannon (base 2)',
  js_divergence_base2: 'Jensen-Shannon divergence (base 2)',
  hellinger: 'Hellinger',
  psi: 'PSI',
  l_infinity: 'L-infinity',
  chi_square: 'Chi-square',
  ks: 'Kolmogorov-Smirnov',
  wasserstein_per_sigma: 'Wasserstein / σ',
  mean_difference: 'Δ mean',
  bad_share: 'Bad values (z)',
};

export function testName(kind: string): string {
  return TEST_NAMES[kind] ?? kind;
}

/** The test behind the p-value: Kolmogorov-Smirnov where values have an order, else chi-square. */
export function decidingMeasure(feature: Pick<FeatureDrift, 'measures'>): Measure | undefined {
  return (
    feature.measures.find((each) => each.kind === 'ks') ??
    feature.measures.find((each) => each.kind === 'chi_square')
  );
}

type Bin = Pick<Schemas['DistributionBin'], 'name' | 'low' | 'high'>;

/** `words` are for the bins that the server names itself: what the reference doesn't know. */
export function binLabel(
  { name, low, high }: Bin,
  number: (value: number) => string,
  words: Readonly<Record<string, string>> = {},
): string {
  if (name !== null) return words[name] ?? name;
  if (low !== null && high !== null) return low === high ? number(low) : `${number(low)} – ${number(high)}`;
  if (low !== null) return `≥ ${number(low)}`;
  if (high !== null) return `< ${number(high)}`;
  return '–';
}
