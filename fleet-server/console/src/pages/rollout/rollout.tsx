/** One rollout, live: stages, gates with evidence, devices, journal, and the verbs. */
import { Link, useParams } from 'react-router';
import { useRollout, type RolloutDetail } from '../../api/rollouts';
import { useCan } from '../../api/session';
import { StackBar } from '../../charts/stack-bar';
import { useI18n } from '../../i18n/i18n';
import { useServerText } from '../../i18n/server-sentences';
import { Badge } from '../../ui/badge';
import { ButtonAnchor } from '../../ui/button';
import { Icon } from '../../ui/icons';
import { Page } from '../../ui/page';
import { Panel } from '../../ui/panel';
import { Empty, Failure, Notice, Skeleton } from '../../ui/states';
import { RelativeTime } from '../../ui/time';
import { toneOf, wordOf } from '../../ui/tones';
import { useUrlState } from '../../ui/url-state';
import { Gates } from './gates';
import { Journal } from './journal';
import { phaseParts } from './phases';
import { PlanFacts } from './plan-facts';
import { StageStrip } from './stage-strip';
import { Tasks } from './tasks';
import { Verbs } from './verbs';

/** The stage that a person most likely wants to see: the one that failed, else the one that runs, else the last. */
export function interestingStage(rollout: RolloutDetail): number {
  const failed = rollout.stages.findIndex((stage) => stage.state === 'gate_failed');
  if (failed >= 0) return failed;
  const moving = rollout.stages.findIndex((stage) => stage.state === 'offering' || stage.state === 'soaking');
  if (moving >= 0) return moving;
  const done = rollout.stages.findLastIndex((stage) => stage.state === 'gate_passed');
  return Math.max(0, done);
}

function StateNotice({ rollout }: { readonly rollout: RolloutDetail }) {
  const { t } = useI18n();
  const server = useServerText();
  const why = rollout.reason ?? rollout.waits_for;
  if (why === null) return null;
  const tone = toneOf(rollout.state);
  return (
    <Notice tone={tone === 'idle' ? 'info' : tone} title={wordOf(t, 'rolloutState', rollout.state)}>
      <p className="break">{server.sentence(why)}</p>
    </Notice>
  );
}

export default function RolloutPage() {
  const { t } = useI18n();
  const server = useServerText();
  const { project = '', rollout: id = '' } = useParams();
  const url = useUrlState();
  const can = useCan(project);
  const query = useRollout(project, id);
  const rollout = query.data;
  const crumbs = [{ to: `/p/${project}/rollouts`, label: t('rollouts.title') }];
  if (!rollout) {
    return (
      <Page title={t('rollouts.rollout')} crumbs={crumbs}>
        {query.error ? (
          <Failure error={query.error} onRetry={() => void query.refetch()} />
        ) : (
          <Skeleton lines={12} />
        )}
      </Page>
    );
  }
  const wanted = Number(url.get('stage')) - 1;
  const chosen = rollout.stages[wanted] ? wanted : interestingStage(rollout);
  const stage = rollout.stages[chosen];
  return (
    <Page
      title={`${rollout.model} ${rollout.release.version}`}
      crumbs={crumbs}
      badges={<Badge tone={toneOf(rollout.state)}>{wordOf(t, 'rolloutState', rollout.state)}</Badge>}
      subtitle={
        <span className="row small">
          <code>{rollout.rollout}</code>
          <span>
            {t('rollouts.by')} {rollout.created_by}, <RelativeTime at={rollout.created_at} />
          </span>
          <Link to={`/p/${project}/releases/${rollout.model}/${rollout.release.version}`}>
            {t('rollouts.release')}
          </Link>
          <Link to={`/p/${project}/drift/${rollout.model}?version=${rollout.release.version}`}>
            {t('nav.drift')}
          </Link>
        </span>
      }
      actions={
        <>
          {can('operator') && <Verbs project={project} rollout={rollout} />}
          <ButtonAnchor
            href={`/api/v1/projects/${project}/rollouts/${id}/evidence`}
            download={`evidence-${id}.json`}
          >
            <Icon name="download" />
            {t('rollout.evidenceFile')}
          </ButtonAnchor>
        </>
      }
    >
      <StateNotice rollout={rollout} />
      <StageStrip
        rollout={rollout}
        chosen={chosen}
        onChoose={(index) => url.set({ stage: String(index + 1) })}
      />
      <div className="grid-2">
        <Panel title={`${t('rollout.gates')}: ${server.stage(stage?.name ?? '')}`}>
          <Gates gates={stage?.gates ?? []} notJudged={stage?.not_judged ?? []} />
        </Panel>
        <div className="stack">
          <Panel title={t('rollout.tasks')}>
            {Object.keys(rollout.tasks).length === 0 ? (
              <Empty title={t('rollout.noTasks')} />
            ) : (
              <StackBar parts={phaseParts(t, rollout.tasks)} />
            )}
          </Panel>
          <Panel title={t('rollout.plan')}>
            <PlanFacts plan={rollout.plan} />
          </Panel>
        </div>
      </div>
      <Panel title={t('rollout.taskList')} isFlush>
        <Tasks project={project} rollout={rollout} />
      </Panel>
      <Panel title={t('rollout.journal')} isFlush>
        <Journal project={project} rollout={id} />
      </Panel>
    </Page>
  );
}
