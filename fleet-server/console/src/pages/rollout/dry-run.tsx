/** What a plan would do to the fleet, before it does. */
import type { DryRun } from '../../api/rollouts';
import { useI18n } from '../../i18n/i18n';
import { useServerText } from '../../i18n/server-sentences';
import { Notice } from '../../ui/states';
import { wordOf } from '../../ui/tones';

export function DryRunResult({ result }: { readonly result: DryRun }) {
  const { t } = useI18n();
  const server = useServerText();
  return (
    <Notice
      tone={result.problems.some((each) => each.is_blocking) ? 'warn' : 'info'}
      title={t('create.dryRunTitle')}
    >
      <ul>
        {result.stages.map((stage) => (
          <li key={stage.name} className="break">
            <span className="strong">{server.stage(stage.name)}</span>{' '}
            {t('rollout.devices', { n: stage.devices.length })}:{' '}
            <span className="muted">{stage.devices.join(', ')}</span>
          </li>
        ))}
        {result.skipped.map((skip) => (
          <li key={skip.device} className="break">
            <span className="strong">{skip.device}</span>: {wordOf(t, 'cause', skip.reason)}
          </li>
        ))}
        {result.problems.map((problem) => (
          <li key={`${problem.stage ?? ''} ${problem.why}`} className="break">
            <span className="strong">
              {problem.stage === null ? t('rollout.plan') : t('rollout.stage', { n: problem.stage + 1 })}
            </span>
            : {server.sentence(problem.why)}
          </li>
        ))}
      </ul>
    </Notice>
  );
}
