/** Each device's part in the rollout. */
import { Link } from 'react-router';
import { useRolloutTasks, type RolloutDetail, type RolloutTask } from '../../api/rollouts';
import { NONE } from '../../i18n/format';
import { useI18n } from '../../i18n/i18n';
import { useServerText } from '../../i18n/server-sentences';
import { Badge } from '../../ui/badge';
import { Pager } from '../../ui/pager';
import { Empty } from '../../ui/states';
import { Table, type Column } from '../../ui/table';
import { RelativeTime } from '../../ui/time';
import { toneOf, wordOf } from '../../ui/tones';
import { pageLimit, sortingOf, unsortedNote, useUrlState } from '../../ui/url-state';

export function Tasks({ project, rollout }: { readonly project: string; readonly rollout: RolloutDetail }) {
  const { t, format } = useI18n();
  const server = useServerText();
  const url = useUrlState();
  const tasks = useRolloutTasks(project, rollout.rollout, {
    cursor: url.get('cursor'),
    ...pageLimit(url.get('sort')),
  });
  const sorting = sortingOf(url, tasks.data);
  const columns: readonly Column<RolloutTask>[] = [
    {
      id: 'device',
      header: t('device.name'),
      cell: (row) => (
        <Link className="row-link break" to={`/p/${project}/devices/${row.device}`}>
          {row.device}
        </Link>
      ),
      isWide: true,
      sort: (a, b) => a.device.localeCompare(b.device),
    },
    {
      id: 'stage',
      header: t('rollout.stages'),
      cell: (row) =>
        row.stage === null ? NONE : server.stage(rollout.stages[row.stage]?.name ?? `stage ${row.stage + 1}`),
      sort: (a, b) => (a.stage ?? Infinity) - (b.stage ?? Infinity),
      isSecondary: true,
    },
    {
      id: 'phase',
      header: t('device.phase'),
      cell: (row) => <Badge tone={toneOf(row.phase)}>{wordOf(t, 'phase', row.phase)}</Badge>,
      sort: (a, b) => a.phase.localeCompare(b.phase),
    },
    {
      id: 'cause',
      header: t('rollout.cause'),
      cell: (row) => (
        <span className="break">
          {row.cause !== null && <span>{wordOf(t, 'cause', row.cause)}. </span>}
          <span className="muted small">{server.sentence(row.why)}</span>
        </span>
      ),
      isWide: true,
    },
    {
      id: 'attempt',
      header: t('rollout.attempt'),
      cell: (row) => format.number(row.attempt),
      align: 'end',
      isSecondary: true,
    },
    { id: 'since', header: t('rollout.since'), cell: (row) => <RelativeTime at={row.since} /> },
  ];
  return (
    <>
      <Table
        caption={t('rollout.taskList')}
        hasCards
        columns={columns}
        rows={tasks.data?.items}
        rowKey={(row) => row.device}
        error={tasks.error}
        onRetry={() => void tasks.refetch()}
        sort={sorting.sort}
        onSort={sorting.onSort}
        empty={<Empty title={t('rollout.noTasks')} />}
      />
      {tasks.data && tasks.data.total > tasks.data.items.length && (
        <div className="panel-body">
          <Pager
            shown={tasks.data.items.length}
            total={tasks.data.total}
            isFirst={url.get('cursor') === ''}
            nextCursor={tasks.data.next_cursor}
            onCursor={(cursor) => url.set({ cursor })}
            note={unsortedNote(t, sorting)}
          />
        </div>
      )}
    </>
  );
}
