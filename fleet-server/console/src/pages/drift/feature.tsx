/** One column in full: both distributions on the same bins, and every measure with its convention. */
import { useDistribution, type DriftWindow } from '../../api/drift';
import type { Measure } from '../../api/drift-report';
import { NONE } from '../../i18n/format';
import { Histogram } from '../../charts/histogram';
import { useI18n } from '../../i18n/i18n';
import { Panel } from '../../ui/panel';
import { Empty, Failure, Skeleton } from '../../ui/states';
import { Table, type Column } from '../../ui/table';
import { StatusBadge } from './columns';
import { binLabel, testName } from './names';

interface FeatureProps {
  readonly project: string;
  readonly model: string;
  readonly window: DriftWindow;
  readonly feature: string;
}

export function FeatureDetail({ project, model, window, feature }: FeatureProps) {
  const { t, format } = useI18n();
  const distribution = useDistribution(project, model, window, feature);
  const found = window.report.features.find((each) => each.feature === feature);
  const columns: readonly Column<Measure>[] = [
    {
      id: 'test',
      header: t('drift.test'),
      cell: (row) => <span className="nowrap">{testName(row.kind)}</span>,
    },
    { id: 'value', header: t('drift.score'), cell: (row) => format.score(row.value, 4), align: 'end' },
    {
      id: 'interval',
      header: '95 %',
      cell: (row) =>
        row.interval ? (
          <span className="nowrap">
            {format.score(row.interval.low)} – {format.score(row.interval.high)}
          </span>
        ) : (
          NONE
        ),
      align: 'end',
      isSecondary: true,
    },
    { id: 'critical', header: t('drift.threshold'), cell: (row) => format.score(row.critical), align: 'end' },
    {
      id: 'p',
      header: 'p',
      cell: (row) => <span className="nowrap">{format.probability(row.p)}</span>,
      align: 'end',
      isSecondary: true,
    },
    {
      id: 'convention',
      header: t('gate.arithmetic'),
      cell: (row) => (
        <span className="small muted">
          {row.convention}
          {row.comparable !== null && ` · = ${row.comparable}`}
        </span>
      ),
      isSecondary: true,
    },
  ];
  const words = { other: t('drift.other'), outside: t('drift.outside') };
  return (
    <Panel
      title={t('drift.distribution', { feature })}
      actions={found && <StatusBadge status={found.status} />}
    >
      <div className="stack">
        {distribution.error && !distribution.data && <Failure error={distribution.error} />}
        {!distribution.data && !distribution.error && <Skeleton lines={9} />}
        {distribution.data && (
          <Histogram
            title={t('drift.distribution', { feature })}
            bins={distribution.data.bins.map((bin) => binLabel(bin, (value) => format.score(value), words))}
            reference={distribution.data.reference}
            current={distribution.data.current}
            currentLabel={window.device ?? t('drift.current')}
          />
        )}
        {found && (
          <Table
            caption={`${feature}: ${t('drift.test')}`}
            columns={columns}
            rows={found.measures}
            rowKey={(row) => row.kind}
            empty={<Empty title={t('drift.tooFew')} />}
          />
        )}
      </div>
    </Panel>
  );
}
