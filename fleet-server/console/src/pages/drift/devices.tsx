/** Which devices drift now, and in which columns. */
import { Link } from 'react-router';
import { useDriftingDevices, type DriftingDevice } from '../../api/drift';
import { useI18n } from '../../i18n/i18n';
import { Tag } from '../../ui/badge';
import { Panel } from '../../ui/panel';
import { Empty } from '../../ui/states';
import { Table, type Column } from '../../ui/table';
import { RelativeTime } from '../../ui/time';
import { wordOf } from '../../ui/tones';

export function DriftingDevices({ project, model }: { readonly project: string; readonly model: string }) {
  const { t, format } = useI18n();
  const devices = useDriftingDevices(project, model);
  const columns: readonly Column<DriftingDevice>[] = [
    {
      id: 'device',
      header: t('drift.device'),
      cell: (row) => (
        <Link
          className="row-link"
          to={`/p/${project}/drift/${model}?device=${row.device}&version=${row.version}`}
        >
          {row.device}
        </Link>
      ),
    },
    {
      id: 'features',
      header: t('drift.features'),
      cell: (row) => (
        <span className="row">
          {row.features.map((feature) => (
            <Tag key={feature.feature}>
              {feature.feature} {format.score(feature.distance, 2)}
            </Tag>
          ))}
        </span>
      ),
    },
    {
      id: 'version',
      header: t('drift.version'),
      cell: (row) => <span className="num">{row.version}</span>,
      isSecondary: true,
    },
    {
      id: 'n',
      header: t('drift.requests'),
      cell: (row) => format.number(row.n),
      align: 'end',
      isSecondary: true,
    },
    {
      id: 'pattern',
      header: t('drift.scope'),
      cell: (row) => wordOf(t, 'pattern', row.pattern),
      isSecondary: true,
    },
    {
      id: 'window',
      header: t('drift.window'),
      cell: (row) => <RelativeTime at={row.window_end} />,
      isSecondary: true,
    },
  ];
  return (
    <Panel title={t('drift.devices')} isFlush>
      <Table
        caption={t('drift.devices')}
        columns={columns}
        rows={devices.data}
        rowKey={(row) => `${row.device} ${row.version}`}
        error={devices.error}
        onRetry={() => void devices.refetch()}
        skeletonRows={2}
        empty={<Empty title={t('drift.noDevices')} />}
      />
    </Panel>
  );
}
