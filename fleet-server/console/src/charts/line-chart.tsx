/** Lines over time with an optional limit. The same numbers stand in a table below, for everybody who prefers or needs it. */
import { useI18n } from '../i18n/i18n';
import { DAY, linear, linePath, niceTicks, timeTicks, type Point, type Scale } from './scale';
import { useWidth } from './use-width';
import './charts.css';

export interface Series {
  readonly id: string;
  readonly label: string;
  readonly points: readonly Point[];
  /** Milliseconds; where more lies between two points, something is missing and the line breaks. */
  readonly longestGap?: number;
}

interface LineChartProps {
  readonly title: string;
  readonly series: readonly Series[];
  readonly format: (value: number) => string;
  /** A dashed line across, e.g. the gate's limit. */
  readonly limit?: { readonly value: number; readonly label: string };
  readonly height?: number;
  /** Lowest and highest value that the axis shows at least. */
  readonly include?: readonly number[];
}

const MARGIN = { top: 10, right: 12, bottom: 24, left: 62 };
/** Room that one label of time needs. */
const LABEL_PX = 84;
const DASHES = ['', '6 3', '2 3', '8 3 2 3', '1 2', '10 4'] as const;

/** Above its line, but below one at the upper edge, where it would be cut. */
function limitLabelAt(line: number): number {
  return line < 2 * MARGIN.top ? line + 12 : line - 4;
}

function extent(values: readonly number[]): readonly [number, number] {
  if (values.length === 0) return [0, 1];
  return [Math.min(...values), Math.max(...values)];
}

function Axes({
  x,
  y,
  width,
  height,
  format,
}: {
  x: Scale;
  y: Scale;
  width: number;
  height: number;
  format: (value: number) => string;
}) {
  const { format: local } = useI18n();
  const [from, to] = x.domain;
  const right = width - MARGIN.right;
  const times = timeTicks(from, to, Math.floor((right - MARGIN.left) / LABEL_PX));
  const anchor = (at: number) => {
    if (at - MARGIN.left < LABEL_PX / 2) return 'start';
    return right - at < LABEL_PX / 2 ? 'end' : 'middle';
  };
  return (
    <g className="chart-axis">
      {niceTicks(y.domain[0], y.domain[1]).map((tick) => (
        <g key={tick} transform={`translate(0 ${y.at(tick)})`}>
          <line x1={MARGIN.left} x2={width - MARGIN.right} className="chart-grid" />
          <text x={MARGIN.left - 8} dy="0.32em" textAnchor="end">
            {format(tick)}
          </text>
        </g>
      ))}
      {times.ticks.map((tick) => (
        <g key={tick}>
          <line
            x1={x.at(tick)}
            x2={x.at(tick)}
            y1={height - MARGIN.bottom}
            y2={height - MARGIN.bottom + 4}
            className="chart-tick"
          />
          <text x={x.at(tick)} y={height - 6} textAnchor={anchor(x.at(tick))}>
            {local.timeTick(tick, times.step, to - from > DAY)}
          </text>
        </g>
      ))}
    </g>
  );
}

export function LineChart({ title, series, format, limit, height = 190, include = [] }: LineChartProps) {
  const { t } = useI18n();
  const [box, width] = useWidth(480);
  const points = series.flatMap((each) => each.points);
  const values = points.flatMap((point) => (point.y === null ? [] : [point.y]));
  const ticks = niceTicks(...extent([...values, ...include, ...(limit ? [limit.value] : [])]));
  const y = linear([ticks[0] ?? 0, ticks.at(-1) ?? 1], [height - MARGIN.bottom, MARGIN.top]);
  const x = linear(extent(points.map((point) => point.x)), [MARGIN.left, width - MARGIN.right]);
  return (
    <figure className="chart">
      <figcaption className="chart-head">
        <span className="strong">{title}</span>
        <Legend labels={series.map((each) => each.label)} />
      </figcaption>
      <div ref={box} className="chart-box">
        {values.length === 0 ? (
          <p className="chart-empty muted">{t('chart.empty')}</p>
        ) : (
          <svg width={width} height={height} role="img" aria-label={title}>
            <Axes x={x} y={y} width={width} height={height} format={format} />
            {limit && (
              <g className="chart-limit">
                <line
                  x1={MARGIN.left}
                  x2={width - MARGIN.right}
                  y1={y.at(limit.value)}
                  y2={y.at(limit.value)}
                />
                <text x={width - MARGIN.right} y={limitLabelAt(y.at(limit.value))} textAnchor="end">
                  {limit.label}
                </text>
              </g>
            )}
            {series.map((each, index) => (
              <g key={each.id} className={`chart-series series-${(index % 6) + 1}`}>
                <path d={linePath(each.points, x, y, each.longestGap)} strokeDasharray={DASHES[index % 6]} />
                {each.points.map((point) =>
                  point.y === null ? null : (
                    <circle
                      key={point.x}
                      cx={x.at(point.x)}
                      cy={y.at(point.y)}
                      r={each.points.length > 60 ? 1.5 : 3}
                    >
                      <title>{`${each.label}: ${format(point.y)}`}</title>
                    </circle>
                  ),
                )}
              </g>
            ))}
          </svg>
        )}
      </div>
      {values.length > 0 && <ChartTable title={title} series={series} format={format} />}
    </figure>
  );
}

export function Legend({ labels }: { readonly labels: readonly string[] }) {
  if (labels.length < 2) return null;
  return (
    <ul className="chart-legend">
      {labels.map((label, index) => (
        <li key={label}>
          <svg width="20" height="8" aria-hidden="true" className={`chart-series series-${(index % 6) + 1}`}>
            <path d="M0 4H20" strokeDasharray={DASHES[index % 6]} />
          </svg>
          {label}
        </li>
      ))}
    </ul>
  );
}

function ChartTable({ title, series, format }: Pick<LineChartProps, 'title' | 'series' | 'format'>) {
  const { t, format: local } = useI18n();
  const times = [...new Set(series.flatMap((each) => each.points.map((point) => point.x)))].toSorted(
    (a, b) => b - a,
  );
  const shown = times.slice(0, 200);
  return (
    <details className="chart-table">
      <summary>{t('chart.asTable')}</summary>
      <div className="table-scroll" role="region" aria-label={title} tabIndex={0}>
        <table className="table">
          <thead>
            <tr>
              <th scope="col">{t('chart.time')}</th>
              {series.map((each) => (
                <th scope="col" key={each.id} className="cell-end">
                  {each.label}
                </th>
              ))}
            </tr>
          </thead>
          <tbody>
            {shown.map((time) => (
              <tr key={time}>
                <td className="num nowrap">{local.dateTime(time)}</td>
                {series.map((each) => {
                  const value = each.points.find((point) => point.x === time)?.y;
                  return (
                    <td key={each.id} className="cell-end num">
                      {value === null || value === undefined ? '–' : format(value)}
                    </td>
                  );
                })}
              </tr>
            ))}
          </tbody>
        </table>
      </div>
    </details>
  );
}
