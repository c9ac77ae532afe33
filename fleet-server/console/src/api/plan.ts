/** A rollout's plan as the OpenAPI has it, and the small arithmetic around it. */
import type { Schemas } from './client';

export type Amount = Schemas['Amount'];
export type Fill = Schemas['StageFill'];
export type Gate = Schemas['Gate'];
export type Metric = Schemas['GateMetric'];
export type NewRollout = Schemas['NewRollout'];
export type OnFailure = Schemas['OnFailure'];
export type Plan = Schemas['RolloutPlan'];
export type ReleaseRef = Schemas['ReleaseRef'];
export type StagePlan = Schemas['StagePlan'];

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
