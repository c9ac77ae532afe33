/** How gates read: values and differences in each metric's own unit. */
import type { Format } from '../../i18n/format';
import type { Translate } from '../../i18n/types';
import type { Gate, Metric } from '../../api/plan';

/** Shares from 0 to 1 are shown as percent, latency in time, distances as plain scores. */
export function formatMetric(format: Format, metric: Metric, value: number): string {
  switch (metric) {
    case 'accuracy':
    case 'estimated_accuracy':
    case 'error_rate':
      return format.percent(value, 2);
    case 'latency_p95':
      return format.microseconds(value);
    case 'prediction_drift':
    case 'input_drift':
      return format.score(value);
    case 'install_failures':
    case 'timeouts':
    case 'self_test_failures':
    case 'probation_failures':
      return format.number(value);
  }
}

/** Metrics whose differences are percentage points. */
const POINTS: readonly Metric[] = ['accuracy', 'estimated_accuracy', 'error_rate'];

function signed(value: number, text: string): string {
  return value > 0 ? `+${text}` : text;
}

/** A difference to the control group. Latency compares as a ratio; shares differ by percentage points. */
export function formatDifference(t: Translate, format: Format, metric: Metric, value: number): string {
  if (POINTS.includes(metric))
    return t('gate.percentPoints', { amount: signed(value, format.points(value)) });
  return signed(value, metric === 'latency_p95' ? format.percent(value) : format.score(value));
}

/** From one difference to another, with the unit once. */
export function formatRange(t: Translate, format: Format, metric: Metric, low: number, high: number): string {
  const from = POINTS.includes(metric)
    ? signed(low, format.points(low))
    : formatDifference(t, format, metric, low);
  return t('gate.range', { low: from, high: formatDifference(t, format, metric, high) });
}

const HIGHER_IS_BETTER: readonly Metric[] = ['accuracy', 'estimated_accuracy'];

export function formatLimit(t: Translate, format: Format, gate: Gate): string {
  const { limit, metric } = gate;
  if ('tasks' in limit) return t('gate.atMostTasks', { n: String(limit.tasks.at_most) });
  if ('value' in limit) {
    const amount = formatMetric(format, metric, limit.value.bound);
    return HIGHER_IS_BETTER.includes(metric) ? t('gate.atLeast', { amount }) : t('gate.atMost', { amount });
  }
  const bound = limit.worse_than_control.by_at_most;
  const amount = formatDifference(t, format, metric, bound).replace(/^\+/, '');
  return t('gate.worse', { amount });
}
