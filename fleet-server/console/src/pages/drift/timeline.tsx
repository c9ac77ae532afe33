/** Windows in order of time: quality, latency, errors, and the drift of the columns that drift most. */
import type { DriftWindow } from '../../api/drift';
import { LineChart, type Series } from '../../charts/line-chart';
import type { Point } from '../../charts/scale';
import { useI18n } from '../../i18n/i18n';
import { Panel } from '../../ui/panel';

const MOST_COLUMNS = 6;

function points(
  windows: readonly DriftWindow[],
  value: (window: DriftWindow) => number | null | undefined,
): Point[] {
  return windows.map((window) => ({ x: new Date(window.to).getTime(), y: value(window) ?? null }));
}

function columnSeries(windows: readonly DriftWindow[]): Series[] {
  const highest = new Map<string, number>();
  for (const window of windows) {
    for (const { feature, distance } of window.report.features) {
      highest.set(feature, Math.max(distance, highest.get(feature) ?? 0));
    }
  }
  return [...highest]
    .toSorted((a, b) => b[1] - a[1])
    .slice(0, MOST_COLUMNS)
    .map(([feature]) => ({
      id: feature,
      label: feature,
      points: points(windows, (window) => {
        const found = window.report.features.find((each) => each.feature === feature);
        return found?.status === 'insufficient' ? null : found?.distance;
      }),
    }));
}

export function Timeline({ windows }: { readonly windows: readonly DriftWindow[] }) {
  const { t, format } = useI18n();
  const limit = windows.at(-1)?.report.thresholds.min_distance;
  return (
    <Panel title={t('drift.timeline')}>
      <div className="grid-2">
        <LineChart
          title={t('drift.accuracy')}
          format={(value) => format.percent(value, 0)}
          include={[0.8, 1]}
          series={[
            {
              id: 'labels',
              label: t('drift.realised'),
              points: points(windows, (w) => w.report.quality.accuracy),
            },
            {
              id: 'estimated',
              label: t('drift.estimated'),
              points: points(windows, (w) => w.report.quality.estimated_accuracy),
            },
          ]}
        />
        <LineChart
          title={t('drift.score.line')}
          format={(value) => format.score(value, 2)}
          include={[0]}
          {...(limit !== undefined && { limit: { value: limit, label: t('drift.threshold') } })}
          series={columnSeries(windows)}
        />
        <LineChart
          title={t('drift.latency')}
          format={format.microseconds}
          include={[0]}
          series={[
            { id: 'p50', label: 'p50', points: points(windows, (w) => w.report.service.p50_us) },
            { id: 'p95', label: 'p95', points: points(windows, (w) => w.report.service.p95_us) },
          ]}
        />
        <LineChart
          title={t('drift.errors')}
          format={(value) => format.percent(value, 1)}
          include={[0, 0.01]}
          series={[
            {
              id: 'errors',
              label: t('drift.errors'),
              points: points(windows, (w) => w.report.service.error_rate),
            },
          ]}
        />
      </div>
    </Panel>
  );
}
