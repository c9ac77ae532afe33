/** Copies a text and says so, also to screen readers. */
import { useEffect, useState } from 'react';
import { useI18n } from '../i18n/i18n';
import { Button } from './button';
import { Icon } from './icons';

export function CopyButton({ text, label }: { readonly text: string; readonly label: string }) {
  const { t } = useI18n();
  const [state, setState] = useState<'idle' | 'copied' | 'failed'>('idle');

  useEffect(() => {
    if (state === 'idle') return;
    const timer = setTimeout(() => setState('idle'), 2_500);
    return () => clearTimeout(timer);
  }, [state]);

  const copy = () => {
    navigator.clipboard.writeText(text).then(
      () => setState('copied'),
      () => setState('failed'),
    );
  };
  return (
    <>
      <Button onPress={copy}>
        <Icon name={state === 'copied' ? 'check' : 'copy'} />
        {label}
      </Button>
      <span className="small muted" role="status">
        {state === 'copied' && t('copy.done')}
        {state === 'failed' && t('copy.failed')}
      </span>
    </>
  );
}

/** A digest cut to its first characters; the whole of it in the tooltip and for screen readers. */
export function Digest({ value }: { readonly value: string }) {
  const hex = value.replace(/^sha256:/, '');
  return (
    <code title={value}>
      <span aria-hidden="true">{hex.slice(0, 12)}</span>
      <span className="visually-hidden">{value}</span>
    </code>
  );
}
