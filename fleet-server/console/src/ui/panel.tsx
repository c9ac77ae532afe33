/** A titled surface: the one container of the console's pages. */
import { useId, type ReactNode } from 'react';
import './panel.css';

interface PanelProps {
  readonly title: ReactNode;
  readonly actions?: ReactNode;
  readonly note?: ReactNode;
  /** Tables touch the panel's edges. */
  readonly isFlush?: boolean;
  readonly children: ReactNode;
}

export function Panel({ title, actions, note, isFlush = false, children }: PanelProps) {
  const id = useId();
  return (
    <section className="panel" aria-labelledby={id}>
      <header className="panel-header">
        <div>
          <h2 id={id}>{title}</h2>
          {note !== undefined && <p className="muted small">{note}</p>}
        </div>
        {actions !== undefined && <div className="panel-actions">{actions}</div>}
      </header>
      <div className={isFlush ? 'panel-flush' : 'panel-body'}>{children}</div>
    </section>
  );
}

/** One figure with its name and unit. */
export function Stat({
  label,
  value,
  detail,
}: {
  readonly label: string;
  readonly value: ReactNode;
  readonly detail?: ReactNode;
}) {
  return (
    <div className="stat">
      <dt>{label}</dt>
      <dd className="stat-value num">{value}</dd>
      {detail !== undefined && <dd className="muted small">{detail}</dd>}
    </div>
  );
}

export function Stats({ children }: { readonly children: ReactNode }) {
  return <dl className="stats">{children}</dl>;
}

/** Names and values, aligned; one column where it is narrow. */
export function Facts({ items }: { readonly items: readonly (readonly [string, ReactNode])[] }) {
  return (
    <dl className="facts">
      {items.map(([name, value]) => (
        <div key={name} className="fact">
          <dt>{name}</dt>
          <dd>{value}</dd>
        </div>
      ))}
    </dl>
  );
}
