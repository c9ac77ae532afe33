/** A rollout's plan and evidence, as the rollout engine writes them to JSON. The OpenAPI passes them through as objects. */
export type Amount = number | string;

export type Metric =
  | 'install_failures'
  | 'timeouts'
  | 'self_test_failures'
  | 'probation_failures'
  | 'latency_p95'
  | 'error_rate'
  | 'prediction_drift'
  | 'input_drift'
  | 'accuracy'
  | 'estimated_accuracy';

export type Limit =
  | { readonly tasks: { readonly at_most: Amount } }
  | { readonly value: { readonly bound: number } }
  | {
      readonly worse_than_control: {
        readonly by_at_most: number;
        readonly judged_by?: 'point' | 'shown_worse' | 'shown_not_worse';
      };
    };

export interface Gate {
  readonly metric: Metric;
  readonly kind?: string | null;
  readonly slice?: string | null;
  readonly limit: Limit;
  readonly min_sample: number;
  readonly min_control_sample?: number;
}

export type Fill =
  { readonly amount: Amount } | { readonly devices: readonly string[] } | { readonly filter: string };

export type OnFailure = 'pause' | 'abort' | 'roll_back_stage' | 'roll_back_all';

export interface StagePlan {
  readonly name?: string | null;
  readonly fill: Fill;
  readonly soak_s?: number;
  readonly min_devices?: number;
  readonly gates?: readonly Gate[] | null;
  readonly on_failure?: OnFailure | null;
}

export interface ReleaseRef {
  readonly version: string;
  readonly digest: string;
  readonly counter: number;
}

export interface Plan {
  readonly model: string;
  readonly release: ReleaseRef;
  readonly target?: string;
  readonly stages: readonly StagePlan[];
  readonly gates?: readonly Gate[];
  readonly on_failure?: OnFailure;
  readonly control_reserve?: Amount;
  readonly mode?: 'replace' | 'shadow' | { readonly ab: Amount };
  readonly failure_budget?: Amount | null;
  readonly unreachable_budget?: Amount | null;
  readonly task_timeout_s?: number;
  readonly unreachable_after_s?: number;
  readonly retries?: { readonly max: number; readonly backoff_s: number };
  readonly needs_approval?: boolean;
  readonly is_dynamic?: boolean;
}

/** The metric's difference to the control group, in the metric's unit: positive is worse. As `Metric::worsening` in the engine. */
export function worsening(metric: Metric, candidate: number, control: number): number {
  if (metric === 'latency_p95') return (candidate - control) / control;
  if (metric === 'accuracy' || metric === 'estimated_accuracy') return control - candidate;
  return candidate - control;
}

export function isAmount(text: string): boolean {
  const percent = /^(\d{1,3})(\.\d{1,3})?%$/.exec(text.trim());
  if (percent) return Number(text.trim().slice(0, -1)) <= 100 && Number(text.trim().slice(0, -1)) > 0;
  return /^[1-9]\d{0,8}$/.test(text.trim());
}

export function toAmount(text: string): Amount {
  const trimmed = text.trim();
  return trimmed.endsWith('%') ? trimmed : Number(trimmed);
}
