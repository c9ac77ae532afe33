/** Every transition with number, time, actor and cause; newest first. */
import { useRolloutJournal } from '../../api/rollouts';
import { useI18n } from '../../i18n/i18n';
import { useServerText } from '../../i18n/server-sentences';
import { Empty, Failure, Skeleton } from '../../ui/states';
import { RelativeTime } from '../../ui/time';
import { Pager } from '../../ui/pager';
import { useUrlState } from '../../ui/url-state';
import { changeText } from './change-text';

export function Journal({ project, rollout }: { readonly project: string; readonly rollout: string }) {
  const { t, format } = useI18n();
  const server = useServerText();
  const url = useUrlState();
  const journal = useRolloutJournal(project, rollout, url.get('journal'));
  if (journal.error && !journal.data)
    return <Failure error={journal.error} onRetry={() => void journal.refetch()} />;
  if (!journal.data) {
    return (
      <div className="panel-body">
        <Skeleton lines={6} />
      </div>
    );
  }
  if (journal.data.items.length === 0) return <Empty title={t('rollout.noJournal')} />;
  return (
    <>
      <ol className="journal">
        {journal.data.items.toReversed().map((entry) => (
          <li key={entry.seq} className="journal-entry">
            <span className="muted num">{format.number(entry.seq)}</span>
            <span className="muted small">
              <RelativeTime at={entry.at} />
            </span>
            <span>
              <span className="strong break">{changeText(t, format, entry)}</span>{' '}
              <span className="muted small break">
                {server.actor(entry.actor)}
                {entry.cause !== '' && `: ${server.sentence(entry.cause)}`}
              </span>
            </span>
          </li>
        ))}
      </ol>
      {journal.data.total > journal.data.items.length && (
        <div className="panel-body">
          <Pager
            shown={journal.data.items.length}
            total={journal.data.total}
            isFirst={url.get('journal') === ''}
            nextCursor={journal.data.next_cursor}
            onCursor={(journalCursor) => url.set({ journal: journalCursor })}
          />
        </div>
      )}
    </>
  );
}
