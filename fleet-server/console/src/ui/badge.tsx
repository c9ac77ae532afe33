/** State badges: tone by colour and by shape of the mark, so that colour is never the only sign. */
import type { ReactNode } from 'react';
import './badge.css';

export type Tone = 'ok' | 'info' | 'warn' | 'bad' | 'idle';

export function Badge({ tone, children }: { readonly tone: Tone; readonly children: ReactNode }) {
  return (
    <span className={`badge badge-${tone}`}>
      <span className="badge-mark" aria-hidden="true" />
      {children}
    </span>
  );
}

/** A short neutral word or key=value pair. */
export function Tag({ children }: { readonly children: ReactNode }) {
  return <span className="tag">{children}</span>;
}
