/** One release: what its signed manifest says, who signed it, who runs it. */
import { Link, useParams } from 'react-router';
import { tensorText, type BlobRef, type Manifest } from '../api/manifest';
import { useRelease, type ReleaseDetail, type Signature } from '../api/releases';
import { useCan } from '../api/session';
import { NONE } from '../i18n/format';
import { useI18n } from '../i18n/i18n';
import { Badge, Tag } from '../ui/badge';
import { ButtonLink } from '../ui/button';
import { Digest } from '../ui/copy';
import { Page } from '../ui/page';
import { Facts, Panel, Stat, Stats } from '../ui/panel';
import { Empty, Failure, Skeleton } from '../ui/states';
import { Table, type Column } from '../ui/table';
import { AbsoluteTime, RelativeTime } from '../ui/time';
import { ModelCard } from './release/card';
import { Measured } from './release/measured';
import { Samples } from './release/samples';
import { Variants } from './release/variants';

function Words({ words }: { readonly words: readonly string[] }) {
  if (words.length === 0) return NONE;
  return (
    <span className="row">
      {words.map((word) => (
        <Tag key={word}>{word}</Tag>
      ))}
    </span>
  );
}

function ManifestFacts({ manifest, digest }: { readonly manifest: Manifest; readonly digest: string }) {
  const { t, format } = useI18n();
  const { hardware, probation, budgets } = manifest;
  return (
    <Facts
      items={[
        [t('release.digest'), <Digest key="digest" value={digest} />],
        [t('releases.counter'), format.number(manifest.counter)],
        [t('release.created'), <AbsoluteTime key="created" at={manifest.created} />],
        [t('release.minAgent'), manifest.min_agent_version],
        [t('release.minCounter'), format.number(manifest.min_counter)],
        [t('release.runtime'), `tract ${manifest.runtime.tract}, ONNX opset ${manifest.runtime.opset}`],
        [
          t('release.hardware'),
          <Words key="hw" words={[...hardware.class, ...hardware.arch, ...hardware.cpu_features]} />,
        ],
        [t('release.inputs'), <code key="in">{manifest.inputs.map(tensorText).join('; ')}</code>],
        [t('release.outputs'), <code key="out">{manifest.outputs.map(tensorText).join('; ')}</code>],
        [t('release.labels'), <Words key="labels" words={manifest.labels} />],
        [t('release.latencyBudget'), format.microseconds(budgets.latency_p95_us)],
        [t('release.memoryBudget'), format.bytes(budgets.memory_bytes)],
        [
          t('release.probation'),
          t('release.probationText', {
            duration: format.seconds(probation.duration_s),
            errors: format.percent(probation.max_error_percent / 100),
            latency: format.microseconds(probation.max_p95_us),
            n: probation.min_requests,
          }),
        ],
        [
          t('release.fallbacks'),
          <Words key="fallback" words={manifest.fallback.map((each) => each.version)} />,
        ],
        [
          t('release.lineage'),
          <Words
            key="lineage"
            words={Object.entries(manifest.lineage).map(([key, value]) => `${key}: ${value}`)}
          />,
        ],
      ]}
    />
  );
}

function Signatures({ release }: { readonly release: ReleaseDetail }) {
  const { t } = useI18n();
  const columns: readonly Column<Signature>[] = [
    { id: 'role', header: t('release.role'), cell: (row) => <span className="strong">{row.role}</span> },
    { id: 'key', header: t('release.key'), cell: (row) => <Digest value={row.key_id} /> },
    {
      id: 'expires',
      header: t('release.expires'),
      cell: () => <AbsoluteTime at={release.metadata_expires_at} />,
    },
  ];
  return (
    <Table
      caption={t('release.signatures')}
      columns={columns}
      rows={release.signatures}
      rowKey={(row) => `${row.role} ${row.key_id}`}
      empty={<Empty title={t('unknown')} />}
    />
  );
}

function Blobs({ manifest }: { readonly manifest: Manifest }) {
  const { t, format } = useI18n();
  const blobs: readonly (readonly [string, BlobRef])[] = [
    ...manifest.variants.map((variant) => [variant.name, variant.model] as const),
    ['reference', manifest.reference],
    ['golden', manifest.golden],
    ['card', manifest.card],
  ];
  const columns: readonly Column<(typeof blobs)[number]>[] = [
    { id: 'name', header: t('release.blob'), cell: ([name]) => name },
    { id: 'digest', header: t('release.blobDigest'), cell: ([, blob]) => <Digest value={blob.digest} /> },
    {
      id: 'type',
      header: t('release.mediaType'),
      cell: ([, blob]) => <code>{blob.media_type}</code>,
      isSecondary: true,
    },
    {
      id: 'size',
      header: t('release.size'),
      cell: ([, blob]) => format.bytes(blob.size_bytes),
      align: 'end',
    },
  ];
  return (
    <Table
      caption={t('release.blobs')}
      columns={columns}
      rows={blobs}
      rowKey={([name]) => name}
      empty={null}
    />
  );
}

export default function ReleasePage() {
  const { t, format } = useI18n();
  const { project = '', model = '', version = '' } = useParams();
  const can = useCan(project);
  const query = useRelease(project, model, version);
  const release = query.data;
  const crumbs = [{ to: `/p/${project}/releases`, label: t('releases.title') }];
  if (!release) {
    return (
      <Page title={`${model} ${version}`} crumbs={crumbs}>
        {query.error ? (
          <Failure error={query.error} onRetry={() => void query.refetch()} />
        ) : (
          <Skeleton lines={12} />
        )}
      </Page>
    );
  }
  const { manifest } = release;
  return (
    <Page
      title={`${model} ${version}`}
      crumbs={crumbs}
      badges={release.state !== 'published' && <Badge tone="warn">{release.state}</Badge>}
      subtitle={
        <>
          {t('releases.published')} <RelativeTime at={release.published_at} />, {release.published_by}
        </>
      }
      actions={
        <>
          <ButtonLink to={`/p/${project}/drift/${model}?version=${version}`}>
            {t('release.seeDrift')}
          </ButtonLink>
          {can('operator') && (
            <ButtonLink look="primary" to={`/p/${project}/rollouts?new=1&model=${model}&version=${version}`}>
              {t('release.startRollout')}
            </ButtonLink>
          )}
        </>
      }
    >
      <Stats>
        <Stat
          label={t('releases.adoption')}
          value={
            <Link to={`/p/${project}/devices?model=${model}&version=${version}`}>
              {format.number(release.active_devices)}
            </Link>
          }
          detail={t('releases.devicesServe', { n: release.active_devices })}
        />
        <Stat
          label={t('release.accuracy')}
          value={format.percent(Math.max(...manifest.variants.map((each) => each.accuracy ?? Number.NaN)), 2)}
        />
        <Stat
          label={t('release.size')}
          value={format.bytes(Math.min(...manifest.variants.map((each) => each.model.size_bytes)))}
        />
        <Stat
          label={t('release.latencyBudget')}
          value={format.microseconds(manifest.budgets.latency_p95_us)}
        />
      </Stats>
      <Panel title={t('release.variants')} isFlush>
        <Variants manifest={manifest} />
      </Panel>
      <Measured project={project} model={model} version={version} />
      <div className="grid-2">
        <Panel title={t('release.signatures')} isFlush>
          <Signatures release={release} />
        </Panel>
        <Panel title={t('release.blobs')} isFlush>
          <Blobs manifest={manifest} />
        </Panel>
      </div>
      <Panel title={t('release.facts')}>
        <ManifestFacts manifest={manifest} digest={release.digest} />
      </Panel>
      <Samples project={project} manifest={manifest} />
      <Panel title={t('release.card')}>
        <ModelCard text={release.card} />
      </Panel>
    </Page>
  );
}
