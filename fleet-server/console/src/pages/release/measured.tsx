/** What devices measured of a release because somebody asked, by hardware class. */
import { useMeasurements, type Measurement } from '../../api/releases';
import { NONE } from '../../i18n/format';
import { useI18n } from '../../i18n/i18n';
import { Panel } from '../../ui/panel';
import { Table, type Column } from '../../ui/table';
import { RelativeTime } from '../../ui/time';

interface MeasuredProps {
  readonly project: string;
  readonly model: string;
  readonly version: string;
}

/** Nothing where nobody has asked. */
export function Measured({ project, model, version }: MeasuredProps) {
  const { t, format } = useI18n();
  const rows = useMeasurements(project, model, version).data ?? [];
  if (rows.length === 0) return null;
  const columns: readonly Column<Measurement>[] = [
    { id: 'class', header: t('measured.class'), cell: (row) => row.hardware_class },
    {
      id: 'variant',
      header: t('release.variant'),
      cell: (row) => <span className="strong">{row.variant}</span>,
    },
    {
      id: 'p50',
      header: t('measured.p50'),
      cell: (row) => (row.figures ? format.microseconds(row.figures.p50_us) : row.failure?.detail),
      align: 'end',
    },
    {
      id: 'p99',
      header: t('measured.p99'),
      cell: (row) => format.microseconds(row.figures?.p99_us),
      align: 'end',
    },
    {
      id: 'memory',
      header: t('release.memory'),
      cell: (row) => format.bytes(row.figures?.peak_bytes),
      align: 'end',
    },
    {
      id: 'golden',
      header: t('measured.golden'),
      cell: (row) => (row.figures ? `${row.figures.passed} / ${row.figures.samples}` : NONE),
      align: 'end',
      isSecondary: true,
    },
    {
      id: 'int8',
      header: t('measured.int8'),
      cell: (row) => format.percent(row.figures ? 1 - row.figures.tract_time_share : null, 0),
      align: 'end',
      isSecondary: true,
    },
    { id: 'device', header: t('measured.device'), cell: (row) => row.device, isSecondary: true },
    {
      id: 'at',
      header: t('measured.at'),
      cell: (row) => <RelativeTime at={row.received_at} />,
      isSecondary: true,
    },
  ];
  return (
    <Panel title={t('measured.title')} isFlush>
      <Table
        caption={t('measured.title')}
        columns={columns}
        rows={rows}
        rowKey={(row) => `${row.variant} ${row.device} ${row.figures ? 'figures' : 'failure'}`}
        empty={null}
      />
    </Panel>
  );
}
