/** Two distributions on the same bins: reference as an outline, current as filled bars. Shares, not counts, so that sizes compare. */
import { useI18n } from '../i18n/i18n';
import { coarsen, linear, niceTicks, shares } from './scale';
import { useWidth } from './use-width';
import './charts.css';

interface MiniProps {
  readonly label: string;
  readonly counts: readonly number[];
  readonly kind: 'reference' | 'current';
}

const MINI = { width: 116, height: 30, bins: 29 };

/** For a table cell: shape only, no axes. */
export function MiniHistogram({ label, counts, kind }: MiniProps) {
  const bars = shares(coarsen(counts, MINI.bins));
  const highest = Math.max(...bars, 1e-9);
  const step = MINI.width / Math.max(1, bars.length);
  return (
    <svg
      width={MINI.width}
      height={MINI.height}
      role="img"
      aria-label={label}
      className={`mini mini-${kind}`}
    >
      {bars.map((share, index) => {
        const height = (share / highest) * (MINI.height - 2);
        return (
          <rect
            key={index}
            x={index * step + 0.5}
            y={MINI.height - height}
            width={Math.max(1, step - 1)}
            height={height}
          />
        );
      })}
      <line x1="0" x2={MINI.width} y1={MINI.height - 0.5} y2={MINI.height - 0.5} />
    </svg>
  );
}

interface HistogramProps {
  readonly title: string;
  /** One per bin, on the same edges or categories for both. */
  readonly bins: readonly string[];
  readonly reference: readonly number[];
  readonly current: readonly number[];
  readonly currentLabel: string;
}

const MARGIN = { top: 8, right: 8, bottom: 40, left: 52 };
const HEIGHT = 260;

export function Histogram({ title, bins, reference, current, currentLabel }: HistogramProps) {
  const { t, format } = useI18n();
  const [box, width] = useWidth(640);
  const before = shares(reference);
  const now = shares(current);
  const ticks = niceTicks(0, Math.max(...before, ...now, 0.01));
  const y = linear([0, ticks.at(-1) ?? 1], [HEIGHT - MARGIN.bottom, MARGIN.top]);
  const step = (width - MARGIN.left - MARGIN.right) / Math.max(1, bins.length);
  const every = Math.ceil(64 / Math.max(1, step));
  return (
    <figure className="chart">
      <figcaption className="chart-head">
        <span className="strong">{title}</span>
        <ul className="chart-legend">
          <li>
            <span className="swatch swatch-reference" aria-hidden="true" />
            {t('drift.reference')}
          </li>
          <li>
            <span className="swatch swatch-current" aria-hidden="true" />
            {currentLabel}
          </li>
        </ul>
      </figcaption>
      <div ref={box} className="chart-box chart-box-tall">
        <svg width={width} height={HEIGHT} role="img" aria-label={title}>
          <g className="chart-axis">
            {ticks.map((tick) => (
              <g key={tick} transform={`translate(0 ${y.at(tick)})`}>
                <line x1={MARGIN.left} x2={width - MARGIN.right} className="chart-grid" />
                <text x={MARGIN.left - 8} dy="0.32em" textAnchor="end">
                  {format.percent(tick, tick < 0.02 && tick > 0 ? 1 : 0)}
                </text>
              </g>
            ))}
          </g>
          {bins.map((bin, index) => {
            const left = MARGIN.left + index * step;
            const here = now[index] ?? 0;
            const there = before[index] ?? 0;
            return (
              <g key={index}>
                <title>
                  {`${bin}: ${t('drift.reference')} ${format.percent(there)}, ${currentLabel} ${format.percent(here)}`}
                </title>
                <rect
                  className="bar-current"
                  x={left + step * 0.12}
                  width={Math.max(1, step * 0.76)}
                  y={y.at(here)}
                  height={y.at(0) - y.at(here)}
                />
                <path
                  className="bar-reference"
                  d={`M${left} ${y.at(0)}V${y.at(there)}H${left + step}V${y.at(0)}`}
                />
                {index % every === 0 && (
                  <text
                    className="chart-bin"
                    x={left + step / 2}
                    y={HEIGHT - MARGIN.bottom + 16}
                    textAnchor="middle"
                  >
                    {bin.length > 12 ? `${bin.slice(0, 11)}…` : bin}
                  </text>
                )}
              </g>
            );
          })}
        </svg>
      </div>
      <details className="chart-table">
        <summary>{t('chart.asTable')}</summary>
        <div className="table-scroll" role="region" aria-label={title} tabIndex={0}>
          <table className="table">
            <thead>
              <tr>
                <th scope="col">{t('drift.bin')}</th>
                <th scope="col" className="cell-end">
                  {t('drift.reference')}
                </th>
                <th scope="col" className="cell-end">
                  {currentLabel}
                </th>
              </tr>
            </thead>
            <tbody>
              {bins.map((bin, index) => (
                <tr key={index}>
                  <td className="num">{bin}</td>
                  <td className="cell-end num">{`${format.number(reference[index])} (${format.percent(before[index])})`}</td>
                  <td className="cell-end num">{`${format.number(current[index])} (${format.percent(now[index])})`}</td>
                </tr>
              ))}
            </tbody>
          </table>
        </div>
      </details>
    </figure>
  );
}
