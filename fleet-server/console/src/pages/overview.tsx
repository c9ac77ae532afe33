/** The fleet at a glance: how many, on what, what is moving, what needs a person. */
import { Link, useParams } from 'react-router';
import { useAlerts } from '../api/alerts';
import { useOverview, type ModelMix } from '../api/overview';
import { useI18n } from '../i18n/i18n';
import { useServerText } from '../i18n/server-sentences';
import { StackBar } from '../charts/stack-bar';
import { Badge } from '../ui/badge';
import { Page } from '../ui/page';
import { Panel, Stat, Stats } from '../ui/panel';
import { Empty, Failure, Skeleton } from '../ui/states';
import { RelativeTime } from '../ui/time';
import { toneOf, wordOf } from '../ui/tones';
import { RolloutTable } from './rollouts';

function Mix({ project, mix }: { readonly project: string; readonly mix: ModelMix }) {
  const { t } = useI18n();
  const parts = mix.mix.map((release) => ({
    id: release.version ?? '-',
    label: release.version ? (
      <Link to={`/p/${project}/devices?model=${mix.model}&version=${release.version}`}>
        {release.version}
      </Link>
    ) : (
      t('overview.noRelease')
    ),
    count: release.devices,
  }));
  return (
    <div className="stack">
      <h3>
        <Link to={`/p/${project}/drift/${mix.model}`}>{mix.model}</Link>
      </h3>
      <StackBar parts={parts} />
    </div>
  );
}

function OpenAlerts({ project }: { readonly project: string }) {
  const { t } = useI18n();
  const server = useServerText();
  const alerts = useAlerts(project, { isOpenOnly: true, limit: 6 });
  if (alerts.error && !alerts.data)
    return <Failure error={alerts.error} onRetry={() => void alerts.refetch()} />;
  if (!alerts.data) return <Skeleton lines={3} />;
  if (alerts.data.items.length === 0)
    return <Empty title={t('overview.noAlerts')} hint={t('alerts.noneHint')} />;
  return (
    <ul className="stack">
      {alerts.data.items.map((alert) => (
        <li key={alert.id} className="alert-line">
          <Badge tone={toneOf(alert.severity)}>{wordOf(t, 'severity', alert.severity)}</Badge>
          <Link to={`/p/${project}/alerts`} className="break">
            {server.sentence(alert.message)}
          </Link>
          <span className="muted small">
            <RelativeTime at={alert.opened_at} />
          </span>
        </li>
      ))}
    </ul>
  );
}

export default function OverviewPage() {
  const { t, format } = useI18n();
  const { project = '' } = useParams();
  const overview = useOverview(project);
  const data = overview.data;
  if (overview.error && !data) {
    return (
      <Page title={t('overview.title')}>
        <Failure error={overview.error} onRetry={() => void overview.refetch()} />
      </Page>
    );
  }
  const devices = `/p/${project}/devices`;
  const number = (value: number | undefined) => format.number(value);
  return (
    <Page title={t('overview.title')}>
      <Stats>
        <Stat label={t('overview.devices')} value={<Link to={devices}>{number(data?.devices.total)}</Link>} />
        <Stat
          label={t('overview.online')}
          value={<Link to={`${devices}?online=true`}>{number(data?.devices.online)}</Link>}
        />
        <Stat
          label={t('overview.offline')}
          value={<Link to={`${devices}?online=false`}>{number(data?.devices.offline)}</Link>}
        />
        <Stat label={t('overview.problems')} value={number(data?.devices.with_problems)} />
        <Stat
          label={t('overview.running')}
          value={<Link to={`/p/${project}/rollouts`}>{number(data?.rollouts.length)}</Link>}
        />
        <Stat
          label={t('overview.alerts')}
          value={<Link to={`/p/${project}/alerts`}>{number(data?.open_alerts)}</Link>}
        />
      </Stats>
      <div className="grid-2">
        <Panel title={t('overview.mix')} note={t('overview.mixNote')}>
          {!data && <Skeleton lines={3} />}
          {data?.models.length === 0 && <Empty title={t('overview.noMix')} hint={t('overview.noMixHint')} />}
          <div className="stack">
            {data?.models.map((mix) => (
              <Mix key={mix.model} project={project} mix={mix} />
            ))}
          </div>
        </Panel>
        <Panel title={t('overview.alerts')}>
          <OpenAlerts project={project} />
        </Panel>
      </div>
      <Panel title={t('nav.rollouts')} isFlush>
        <RolloutTable project={project} limit={8} />
      </Panel>
    </Page>
  );
}
