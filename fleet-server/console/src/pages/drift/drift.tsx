/** Drift of a model: the columns table, the distributions, the timeline, and which device it comes from. */
import { Link, Navigate, useParams } from 'react-router';
import { useDrift, type DriftQuery, type DriftWindow } from '../../api/drift';
import { useDevices } from '../../api/devices';
import { useModels, useReleases } from '../../api/releases';
import { useI18n } from '../../i18n/i18n';
import { Badge } from '../../ui/badge';
import { Select } from '../../ui/field';
import { Filters, Page } from '../../ui/page';
import { Panel, Stat, Stats } from '../../ui/panel';
import { Empty, Failure, Skeleton } from '../../ui/states';
import { AbsoluteTime } from '../../ui/time';
import { useUrlState } from '../../ui/url-state';
import { ColumnsTable } from './columns';
import { DriftingDevices } from './devices';
import { FeatureDetail } from './feature';
import { RANGES, rangeOf, type Range } from './range';
import { Timeline } from './timeline';

function Scope({ project, model }: { readonly project: string; readonly model: string }) {
  const { t } = useI18n();
  const url = useUrlState();
  const models = useModels(project);
  const releases = useReleases(project, model);
  const devices = useDevices(project, { model, limit: 500 });
  return (
    <Filters>
      <ModelSelect project={project} model={model} models={(models.data ?? []).map((each) => each.model)} />
      <Select
        label={t('drift.version')}
        options={[
          { id: '', label: t('drift.allReleases') },
          ...(releases.data ?? []).map((each) => ({ id: each.version, label: each.version })),
        ]}
        value={url.get('version')}
        onChange={(version) => url.set({ version })}
      />
      <Select
        label={t('drift.device')}
        options={[
          { id: '', label: t('drift.wholeFleet') },
          ...(devices.data?.items ?? []).map((each) => ({ id: each.device, label: each.device })),
        ]}
        value={url.get('device')}
        onChange={(device) => url.set({ device })}
      />
      <Select
        label={t('drift.range')}
        options={RANGES.map((id) => ({ id, label: t(`drift.range.${id}`) }))}
        value={rangeOf(url.get('range'))}
        onChange={(range) => url.set({ range })}
      />
    </Filters>
  );
}

function ModelSelect({
  project,
  model,
  models,
}: {
  readonly project: string;
  readonly model: string;
  readonly models: readonly string[];
}) {
  const { t } = useI18n();
  const url = useUrlState();
  return (
    <Select
      label={t('drift.model')}
      options={(models.includes(model) ? models : [model, ...models]).map((id) => ({ id, label: id }))}
      value={model}
      onChange={(next) => url.goTo(`/p/${project}/drift/${next}`)}
    />
  );
}

/** The newest window that is complete, of the release that answered most in it; else what there is so far. */
function latest(windows: readonly DriftWindow[]): DriftWindow | undefined {
  const closed = windows.filter((window) => window.is_closed);
  const end = closed.at(-1)?.to;
  const [first, ...others] = closed.filter((window) => window.to === end);
  return first ? others.reduce((a, b) => (b.n > a.n ? b : a), first) : windows.at(-1);
}

function Windows({ project, query }: { readonly project: string; readonly query: DriftQuery }) {
  const { t, format } = useI18n();
  const url = useUrlState();
  const drift = useDrift(project, query);
  if (drift.error && !drift.data) return <Failure error={drift.error} onRetry={() => void drift.refetch()} />;
  if (!drift.data) return <Skeleton lines={12} />;
  const newest = latest(drift.data);
  if (!newest) {
    return (
      <Panel title={t('drift.table')}>
        <Empty title={t('drift.none')} hint={t('drift.noneHint')} />
      </Panel>
    );
  }
  const { report } = newest;
  const feature = url.get('feature');
  const inputs = report.features.filter(
    (each) => each.role === 'input' && (each.status === 'drifted' || each.status === 'stable'),
  );
  return (
    <>
      <Stats>
        <Stat
          label={t('drift.dataset')}
          value={
            <Badge tone={report.verdict.is_dataset_drifted ? 'bad' : 'ok'}>
              {t(report.verdict.is_dataset_drifted ? 'drift.detected' : 'drift.notDetected')}
            </Badge>
          }
          detail={t('drift.summary', {
            inputs: inputs.filter((each) => each.status === 'drifted').length,
            allInputs: inputs.length,
            drifted: report.verdict.drifted,
            total: report.verdict.judged,
          })}
        />
        <Stat
          label={`${t('drift.accuracy')} (${t('drift.realised')})`}
          value={format.percent(report.quality.accuracy)}
          detail={`n = ${format.number(report.quality.labelled)}`}
        />
        <Stat
          label={`${t('drift.accuracy')} (${t('drift.estimated')})`}
          value={format.percent(report.quality.estimated_accuracy)}
          detail={`n = ${format.number(newest.n)}`}
        />
        <Stat label={`${t('drift.latency')} (p95)`} value={format.microseconds(report.service.p95_us)} />
        <Stat
          label={t('drift.errors')}
          value={format.percent(report.service.error_rate, 2)}
          detail={`n = ${format.number(newest.n)}`}
        />
      </Stats>
      <Panel
        title={t('drift.table')}
        note={
          <>
            {t('drift.tableNote')}. {t('drift.window')}: <AbsoluteTime at={newest.from} /> –{' '}
            <AbsoluteTime at={newest.to} />
          </>
        }
        isFlush
      >
        <ColumnsTable
          project={project}
          model={query.model}
          window={newest}
          chosen={feature}
          onChoose={(name) => url.set({ feature: name === feature ? null : name })}
        />
      </Panel>
      {feature !== '' && (
        <FeatureDetail project={project} model={query.model} window={newest} feature={feature} />
      )}
      <Timeline windows={drift.data} />
    </>
  );
}

export default function DriftPage() {
  const { t } = useI18n();
  const { project = '', model } = useParams();
  const url = useUrlState();
  const models = useModels(project);
  if (model === undefined) {
    if (models.error)
      return (
        <Page title={t('drift.title')}>
          <Failure error={models.error} />
        </Page>
      );
    const first = models.data?.[0];
    if (first) return <Navigate to={first.model} replace />;
    return (
      <Page title={t('drift.title')}>
        {models.data ? (
          <Empty
            title={t('drift.noModels')}
            action={<Link to={`/p/${project}/releases`}>{t('nav.releases')}</Link>}
          />
        ) : (
          <Skeleton lines={8} />
        )}
      </Page>
    );
  }
  const range: Range = rangeOf(url.get('range'));
  const query: DriftQuery = { model, version: url.get('version'), device: url.get('device'), range };
  return (
    <Page title={t('drift.of', { model })}>
      <Scope project={project} model={model} />
      <Windows project={project} query={query} />
      <DriftingDevices project={project} model={model} />
    </Page>
  );
}
