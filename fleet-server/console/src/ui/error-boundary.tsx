/** A page that throws takes only itself down, and says what to report. */
import { Component, type ReactNode } from 'react';
import { useI18n } from '../i18n/i18n';
import { Button } from './button';

interface State {
  readonly error: Error | null;
}

export class ErrorBoundary extends Component<{ readonly children: ReactNode }, State> {
  override state: State = { error: null };

  static getDerivedStateFromError(error: unknown): State {
    return { error: error instanceof Error ? error : new Error(String(error)) };
  }

  override render(): ReactNode {
    return this.state.error ? <Crash error={this.state.error} /> : this.props.children;
  }
}

function Crash({ error }: { readonly error: Error }) {
  const { t } = useI18n();
  return (
    <div className="page" role="alert">
      <h1>{t('error.crash')}</h1>
      <p>{t('error.crashHint')}</p>
      <code className="break">{error.message}</code>
      <p>
        <Button onPress={() => window.location.reload()}>{t('error.reload')}</Button>
      </p>
    </div>
  );
}
