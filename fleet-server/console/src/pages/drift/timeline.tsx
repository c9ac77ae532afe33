/**
 * Windows in order of time: quality, latency, errors, and the drift of the columns that drift most. Releases that
 * served in the same time are lines of their own: joined, they would look like a model that swings.
 */
import type { DriftWindow } from '../../api/drift';
import { LineChart, type Series } from '../../charts/line-chart';
import type { Point } from '../../charts/scale';
import { useI18n } from '../../i18n/i18n';
import { Panel } from '../../ui/panel';

const MOST_COLUMNS = 6;
const MOST_RELEASES = 4;

function points(
  windows: readonly DriftWindow[],
  value: (window: DriftWindow) => number | null | undefined,
): Point[] {
  return windows.map((window) => {
    const [from, to] = [new Date(window.from).getTime(), new Date(window.to).getTime()];
    // A missing window is no measurement: the line must not bridge it. Old windows are hours and days.
    return { x: to, y: value(window) ?? null, span: to - from };
  });
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

/** Windows of each release; the release with the newest window is last. */
function byRelease(windows: readonly DriftWindow[]): readonly (readonly [string, readonly DriftWindow[]])[] {
  const releases = new Map<string, DriftWindow[]>();
  for (const window of windows) {
    const earlier = releases.get(window.version) ?? [];
    releases.delete(window.version);
    releases.set(window.version, [...earlier, window]);
  }
  return [...releases].slice(-MOST_RELEASES);
}

export function Timeline({ windows }: { readonly windows: readonly DriftWindow[] }) {
  const { t, format } = useI18n();
  const releases = byRelease(windows);
  const [version = '', newest = []] = releases.at(-1) ?? [];
  const isOne = releases.length === 1;
  const limit = newest.at(-1)?.report.thresholds.min_distance;
  const lines = (label: string, value: (window: DriftWindow) => number | null | undefined): Series[] =>
    releases.map(([release, own]) => ({
      id: `${label} ${release}`,
      label: isOne ? label : release,
      points: points(own, value),
    }));
  return (
    <Panel title={t('drift.timeline')} note={isOne ? undefined : t('drift.timelineNote', { version })}>
      <div className="grid-2">
        <LineChart
          title={isOne ? t('drift.accuracy') : `${t('drift.accuracy')} (${t('drift.realised')})`}
          format={(value) => format.percent(value, 0)}
          include={[0.8, 1]}
          series={[
            ...lines(t('drift.realised'), (w) => w.report.quality.accuracy),
            ...(isOne ? lines(t('drift.estimated'), (w) => w.report.quality.estimated_accuracy) : []),
          ]}
        />
        <LineChart
          title={isOne ? t('drift.score.line') : `${t('drift.score.line')} (${version})`}
          format={(value) => format.score(value, 2)}
          include={[0]}
          {...(limit !== undefined && { limit: { value: limit, label: t('drift.threshold') } })}
          series={columnSeries(newest)}
        />
        <LineChart
          title={isOne ? t('drift.latency') : `${t('drift.latency')} (p95)`}
          format={format.microseconds}
          include={[0]}
          series={[
            ...(isOne ? lines('p50', (w) => w.report.service.p50_us) : []),
            ...lines('p95', (w) => w.report.service.p95_us),
          ]}
        />
        <LineChart
          title={t('drift.errors')}
          format={(value) => format.percent(value, 1)}
          include={[0, 0.01]}
          series={lines(t('drift.errors'), (w) => w.report.service.error_rate)}
        />
      </div>
    </Panel>
  );
}
