/** What a view shows while it loads, when it holds nothing and when it failed: each says what to do next. */
import type { ReactNode } from 'react';
import { ApiError, messageOf } from '../api/errors';
import { useI18n } from '../i18n/i18n';
import { useServerText } from '../i18n/server-sentences';
import { Button } from './button';
import './states.css';

export function Empty({
  title,
  hint,
  action,
}: {
  readonly title: string;
  readonly hint?: ReactNode;
  readonly action?: ReactNode;
}) {
  return (
    <div className="state">
      <p className="strong">{title}</p>
      {hint !== undefined && <p className="muted">{hint}</p>}
      {action}
    </div>
  );
}

export function Failure({ error, onRetry }: { readonly error: unknown; readonly onRetry?: () => void }) {
  const { t } = useI18n();
  const server = useServerText();
  const known = error instanceof ApiError ? error : null;
  return (
    <div className="state state-bad" role="alert">
      <p className="strong">{known?.status === 404 ? t('error.notFound') : t('error.title')}</p>
      <p className="muted">{known ? server.sentence(known.message) : t('error.unreachable')}</p>
      {known && <code className="muted small">{`${known.status} ${known.code}`}</code>}
      {onRetry && (
        <Button size="small" onPress={onRetry}>
          {t('action.retry')}
        </Button>
      )}
    </div>
  );
}

/** What went wrong, in the person's language. */
export function ErrorText({ error }: { readonly error: unknown }) {
  const server = useServerText();
  return server.sentence(messageOf(error) ?? '');
}

/** Grey lines of the height of the text that will come, so that nothing jumps. */
export function Skeleton({ lines = 3 }: { readonly lines?: number }) {
  const { t } = useI18n();
  return (
    <div className="skeleton" role="status">
      <span className="visually-hidden">{t('state.loading')}</span>
      {Array.from({ length: lines }, (_, line) => (
        <span key={line} className="skeleton-line" aria-hidden="true" />
      ))}
    </div>
  );
}

/** A sentence that matters, in its tone. */
export function Notice({
  tone,
  title,
  children,
}: {
  readonly tone: 'info' | 'warn' | 'bad' | 'ok';
  readonly title?: ReactNode;
  readonly children?: ReactNode;
}) {
  return (
    <div className={`notice notice-${tone}`}>
      {title !== undefined && <p className="strong">{title}</p>}
      {children}
    </div>
  );
}
