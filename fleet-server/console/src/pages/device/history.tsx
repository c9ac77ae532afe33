/** What happened to a device: tasks with their causes, and events. */
import { Link } from 'react-router';
import { useDeviceEvents, useDeviceTasks, type DeviceEvent, type DeviceTask } from '../../api/devices';
import { NONE } from '../../i18n/format';
import { useI18n } from '../../i18n/i18n';
import { Badge } from '../../ui/badge';
import { Panel } from '../../ui/panel';
import { Empty } from '../../ui/states';
import { Table, type Column } from '../../ui/table';
import { RelativeTime } from '../../ui/time';
import { toneOf, wordOf } from '../../ui/tones';

export function DeviceHistory({ project, device }: { readonly project: string; readonly device: string }) {
  return (
    <div className="grid-2">
      <TaskHistory project={project} device={device} />
      <Events project={project} device={device} />
    </div>
  );
}

function TaskHistory({ project, device }: { readonly project: string; readonly device: string }) {
  const { t } = useI18n();
  const tasks = useDeviceTasks(project, device);
  const columns: readonly Column<DeviceTask>[] = [
    {
      id: 'release',
      header: t('rollouts.release'),
      cell: (row) =>
        row.rollout ? (
          <Link className="row-link nowrap" to={`/p/${project}/rollouts/${row.rollout}`}>
            {row.model} {row.release.version}
          </Link>
        ) : (
          <span className="nowrap">
            {row.model} {row.release.version}
          </span>
        ),
    },
    {
      id: 'phase',
      header: t('device.phase'),
      cell: (row) => <Badge tone={toneOf(row.phase)}>{wordOf(t, 'phase', row.phase)}</Badge>,
    },
    {
      id: 'cause',
      header: t('rollout.cause'),
      cell: (row) => (
        <span className="break">
          {row.cause === null ? NONE : wordOf(t, 'cause', row.cause.kind)}
          {row.cause && <span className="muted small"> {row.cause.detail}</span>}
        </span>
      ),
      isSecondary: true,
    },
    { id: 'when', header: t('device.when'), cell: (row) => <RelativeTime at={row.at} /> },
  ];
  return (
    <Panel title={t('device.history')} isFlush>
      <Table
        caption={t('device.history')}
        columns={columns}
        rows={tasks.data?.items}
        rowKey={(row) => `${row.received_at} ${row.phase} ${row.release.digest}`}
        error={tasks.error}
        onRetry={() => void tasks.refetch()}
        empty={<Empty title={t('device.noHistory')} />}
      />
    </Panel>
  );
}

function Events({ project, device }: { readonly project: string; readonly device: string }) {
  const { t } = useI18n();
  const events = useDeviceEvents(project, device);
  const columns: readonly Column<DeviceEvent>[] = [
    { id: 'event', header: t('device.event'), cell: (row) => <code className="break">{row.name}</code> },
    { id: 'detail', header: t('device.detail'), cell: (row) => <span className="break">{row.detail}</span> },
    { id: 'when', header: t('device.when'), cell: (row) => <RelativeTime at={row.at} /> },
  ];
  return (
    <Panel title={t('device.events')} isFlush>
      <Table
        caption={t('device.events')}
        columns={columns}
        rows={events.data?.items}
        rowKey={(row) => row.id}
        error={events.error}
        onRetry={() => void events.refetch()}
        empty={<Empty title={t('device.noEvents')} />}
      />
    </Panel>
  );
}
