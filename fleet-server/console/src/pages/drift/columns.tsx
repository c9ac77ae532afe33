/** The table that data scientists know: column, type, reference, current, drift, test, score. */
import { useDistribution, type DriftWindow } from '../../api/drift';
import type { FeatureDrift } from '../../api/drift-report';
import { MiniHistogram } from '../../charts/histogram';
import { useI18n } from '../../i18n/i18n';
import { NONE } from '../../i18n/format';
import { Badge } from '../../ui/badge';
import { Empty } from '../../ui/states';
import { Table, type Column } from '../../ui/table';
import { parseSort, formatSort, useUrlState } from '../../ui/url-state';
import { decidingMeasure, testName } from './names';

interface CellProps {
  readonly project: string;
  readonly model: string;
  readonly window: DriftWindow;
  readonly feature: FeatureDrift;
  readonly kind: 'reference' | 'current';
}

function DistributionCell({ project, model, window, feature, kind }: CellProps) {
  const { t } = useI18n();
  const distribution = useDistribution(project, model, window, feature.feature);
  if (!distribution.data) return <span className="mini-space">{distribution.isError ? NONE : ''}</span>;
  const label = `${feature.feature}: ${t(kind === 'reference' ? 'drift.reference' : 'drift.current')}`;
  return <MiniHistogram label={label} counts={distribution.data[kind]} kind={kind} />;
}

export function StatusBadge({ status }: { readonly status: FeatureDrift['status'] }) {
  const { t } = useI18n();
  if (status === 'drifted') return <Badge tone="bad">{t('drift.detected')}</Badge>;
  if (status === 'stable') return <Badge tone="ok">{t('drift.notDetected')}</Badge>;
  return <Badge tone="idle">{t('drift.tooFew')}</Badge>;
}

interface ColumnsTableProps {
  readonly project: string;
  readonly model: string;
  readonly window: DriftWindow;
  readonly chosen: string;
  readonly onChoose: (feature: string) => void;
}

const RANK = ['drifted', 'stable', 'insufficient'];

export function ColumnsTable({ project, model, window, chosen, onChoose }: ColumnsTableProps) {
  const { t, format } = useI18n();
  const url = useUrlState();
  const common = { project, model, window };
  const columns: readonly Column<FeatureDrift>[] = [
    {
      id: 'column',
      header: t('drift.column'),
      cell: (row) => (
        <button
          type="button"
          className="link-button"
          aria-expanded={row.feature === chosen}
          title={t('drift.chooseFeature', { feature: row.feature })}
          onClick={() => onChoose(row.feature)}
        >
          {row.feature}
        </button>
      ),
      isWide: true,
      sort: (a, b) => a.feature.localeCompare(b.feature),
    },
    {
      id: 'type',
      header: t('drift.type'),
      cell: (row) => (row.role === 'output' ? `${t('drift.kind.prediction')}, ${row.kind}` : row.kind),
      isSecondary: true,
    },
    {
      id: 'reference',
      header: t('drift.reference'),
      cell: (row) => <DistributionCell {...common} feature={row} kind="reference" />,
      isSecondary: true,
    },
    {
      id: 'current',
      header: t('drift.current'),
      cell: (row) => <DistributionCell {...common} feature={row} kind="current" />,
    },
    {
      id: 'drift',
      header: t('drift.drift'),
      cell: (row) => <StatusBadge status={row.status} />,
      sort: (a, b) => RANK.indexOf(a.status) - RANK.indexOf(b.status),
    },
    {
      id: 'test',
      header: t('drift.test'),
      cell: (row) => {
        const measure = decidingMeasure(row);
        return measure ? <span title={measure.convention}>{testName(measure.kind)}</span> : NONE;
      },
      isSecondary: true,
    },
    {
      id: 'p',
      header: t('drift.p'),
      cell: (row) => format.probability(row.adjusted_p),
      align: 'end',
      isSecondary: true,
      sort: (a, b) => (a.adjusted_p ?? 1) - (b.adjusted_p ?? 1),
    },
    {
      id: 'score',
      header: t('drift.score'),
      cell: (row) => (
        <span
          title={`Jensen-Shannon (ln), ${t('drift.threshold')} ${format.score(window.report.thresholds.min_distance)}`}
        >
          {format.score(row.distance)}
        </span>
      ),
      align: 'end',
      sort: (a, b) => a.distance - b.distance,
    },
  ];
  return (
    <Table
      caption={t('drift.table')}
      hasCards
      columns={columns}
      rows={window.report.features}
      rowKey={(row) => row.feature}
      sort={parseSort(url.get('sort'))}
      onSort={(sort) => url.set({ sort: formatSort(sort) })}
      empty={<Empty title={t('drift.none')} />}
    />
  );
}
