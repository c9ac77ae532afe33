/** A comparison of a window with the reference, as the profile crate writes it to JSON. The OpenAPI passes it through as an object. */
export interface Interval {
  readonly low: number;
  readonly high: number;
}

export interface Measure {
  readonly kind: string;
  readonly value: number;
  readonly convention: string;
  readonly interval: Interval | null;
  readonly critical: number | null;
  readonly p: number | null;
  readonly comparable: string | null;
}

export interface FeatureDrift {
  readonly feature: string;
  readonly role: 'input' | 'output';
  readonly kind: string;
  readonly status: 'insufficient' | 'stable' | 'drifted';
  readonly distance: number;
  readonly adjusted_p: number | null;
  readonly measures: readonly Measure[];
}

export interface DriftReport {
  readonly verdict: {
    readonly judged: number;
    readonly drifted: number;
    readonly is_dataset_drifted: boolean;
  };
  readonly features: readonly FeatureDrift[];
  readonly service: {
    readonly answered: number;
    readonly failed: number;
    readonly error_rate: number | null;
    readonly p50_us: number | null;
    readonly p95_us: number | null;
  };
  readonly quality: {
    readonly predictions: number;
    readonly labelled: number;
    readonly accuracy: number | null;
    readonly estimated_accuracy: number | null;
  };
  readonly thresholds: { readonly alpha: number; readonly min_distance: number; readonly min_values: number };
}
