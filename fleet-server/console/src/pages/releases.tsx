/** Models and their releases. */
import { Link, useParams } from 'react-router';
import { useModels, useReleases, type Release } from '../api/releases';
import { useI18n } from '../i18n/i18n';
import { Badge, Tag } from '../ui/badge';
import { Digest } from '../ui/copy';
import { Page } from '../ui/page';
import { Panel } from '../ui/panel';
import { Empty, Failure, Skeleton } from '../ui/states';
import { Table, type Column } from '../ui/table';
import { RelativeTime } from '../ui/time';

function ModelReleases({ project, model }: { readonly project: string; readonly model: string }) {
  const { t, format } = useI18n();
  const releases = useReleases(project, model);
  const columns: readonly Column<Release>[] = [
    {
      id: 'version',
      header: t('releases.version'),
      cell: (row) => (
        <span className="row">
          <Link className="row-link num" to={`/p/${project}/releases/${model}/${row.version}`}>
            {row.version}
          </Link>
          {row === releases.data?.[0] && <Badge tone="info">{t('releases.latest')}</Badge>}
        </span>
      ),
    },
    {
      id: 'adoption',
      header: t('releases.adoption'),
      cell: (row) => (
        <Link to={`/p/${project}/devices?model=${model}&version=${row.version}`}>
          {t('releases.devicesServe', { n: row.active_devices })}
        </Link>
      ),
    },
    {
      id: 'accuracy',
      header: `${t('release.accuracy')} (${t('release.variant')})`,
      cell: (row) => (
        <span className="row">
          {row.variants.map((variant) => (
            <Tag key={variant.name}>
              {variant.name} {format.percent(variant.accuracy)} · {format.bytes(variant.size_bytes)}
            </Tag>
          ))}
        </span>
      ),
      isSecondary: true,
    },
    {
      id: 'counter',
      header: t('releases.counter'),
      cell: (row) => format.number(row.counter),
      align: 'end',
      isSecondary: true,
    },
    {
      id: 'digest',
      header: t('release.digest'),
      cell: (row) => <Digest value={row.digest} />,
      isSecondary: true,
    },
    { id: 'by', header: t('releases.publishedBy'), cell: (row) => row.published_by, isSecondary: true },
    {
      id: 'published',
      header: t('releases.published'),
      cell: (row) => <RelativeTime at={row.published_at} />,
    },
  ];
  return (
    <Panel title={model} actions={<Link to={`/p/${project}/drift/${model}`}>{t('nav.drift')}</Link>} isFlush>
      <Table
        caption={`${model}: ${t('releases.title')}`}
        columns={columns}
        rows={releases.data}
        rowKey={(row) => row.version}
        error={releases.error}
        onRetry={() => void releases.refetch()}
        skeletonRows={3}
        empty={<Empty title={t('releases.none')} hint={t('releases.noneHint')} />}
      />
    </Panel>
  );
}

export default function ReleasesPage() {
  const { t } = useI18n();
  const { project = '' } = useParams();
  const models = useModels(project);
  return (
    <Page title={t('releases.title')}>
      {models.error && !models.data && <Failure error={models.error} onRetry={() => void models.refetch()} />}
      {models.isPending && <Skeleton lines={5} />}
      {models.data?.length === 0 && <Empty title={t('releases.none')} hint={t('releases.noneHint')} />}
      {models.data?.map((each) => (
        <ModelReleases key={each.model} project={project} model={each.model} />
      ))}
    </Page>
  );
}
