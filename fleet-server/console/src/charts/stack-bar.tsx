/** Parts of a whole as one bar with its legend: numbers stand beside it, the bar is decoration for the eye. */
import type { ReactNode } from 'react';
import type { Tone } from '../ui/badge';
import './charts.css';

export interface Part {
  readonly id: string;
  readonly label: ReactNode;
  readonly count: number;
  /** A state has a tone; a category is drawn by its position. */
  readonly tone?: Tone;
}

function fill(part: Part, index: number): string {
  return part.tone ? `fill-${part.tone}` : `fill-series-${(index % 6) + 1}`;
}

export function StackBar({
  parts,
  isLegendHidden = false,
}: {
  readonly parts: readonly Part[];
  readonly isLegendHidden?: boolean;
}) {
  const shown = parts.filter((part) => part.count > 0);
  return (
    <div className="stack-bar">
      <div className="stack-bar-track" aria-hidden="true">
        {shown.map((part) => (
          <span key={part.id} className={fill(part, parts.indexOf(part))} style={{ flexGrow: part.count }} />
        ))}
      </div>
      {!isLegendHidden && (
        <ul className="stack-bar-legend">
          {shown.map((part) => (
            <li key={part.id}>
              <span className={`swatch ${fill(part, parts.indexOf(part))}`} aria-hidden="true" />
              <span>{part.label}</span>
              <span className="num strong">{part.count}</span>
            </li>
          ))}
        </ul>
      )}
    </div>
  );
}
