/** Goes through a list by the server's cursor: "next" pushes, the browser's own back button goes back. */
import { useI18n } from '../i18n/i18n';
import { Button } from './button';
import { Icon } from './icons';

interface PagerProps {
  readonly shown: number;
  readonly total: number;
  readonly isFirst: boolean;
  readonly nextCursor: string | null | undefined;
  readonly onCursor: (cursor: string | null) => void;
  readonly note?: string | undefined;
}

export function Pager({ shown, total, isFirst, nextCursor, onCursor, note }: PagerProps) {
  const { t } = useI18n();
  return (
    <nav className="row" aria-label={t('pager.title')}>
      <span className="muted small num">{t('pager.shown', { shown, total })}</span>
      {!isFirst && (
        <Button size="small" onPress={() => onCursor(null)}>
          <Icon name="previous" size={12} />
          {t('pager.first')}
        </Button>
      )}
      {nextCursor !== null && nextCursor !== undefined && (
        <Button size="small" onPress={() => onCursor(nextCursor)}>
          {t('pager.next')}
          <Icon name="next" size={12} />
        </Button>
      )}
      {note !== undefined && <span className="muted small">{note}</span>}
    </nav>
  );
}
