/** New rollout: filled in with what is suggested, a dry run that changes nothing, then start. */
import { useState, type SubmitEvent } from 'react';
import { useNavigate } from 'react-router';
import type { OnFailure } from '../../api/plan';
import { useModels, useReleases } from '../../api/releases';
import { useCreateRollout, useDryRun } from '../../api/rollouts';
import { useI18n } from '../../i18n/i18n';
import { Button } from '../../ui/button';
import { Dialog, DialogActions, DialogBody } from '../../ui/dialog';
import { Checkbox, FieldGroup, Select, TextField } from '../../ui/field';
import { Icon } from '../../ui/icons';
import { ErrorText } from '../../ui/states';
import { isAmount } from '../../api/plan';
import { CHOICES, isValid, newDraft, toPlan, type Choice, type Draft, type GateDraft } from './draft';
import { DryRunResult } from './dry-run';
import './create.css';

const ON_FAILURE: readonly OnFailure[] = ['roll_back_stage', 'roll_back_all', 'pause', 'abort'];

interface PartProps {
  readonly draft: Draft;
  readonly change: (change: Partial<Draft>) => void;
}

function Stages({ draft, change }: PartProps) {
  const { t } = useI18n();
  const edit = (key: number, part: Partial<Draft['stages'][number]>) =>
    change({ stages: draft.stages.map((stage) => (stage.key === key ? { ...stage, ...part } : stage)) });
  const add = () =>
    change({
      stages: [
        ...draft.stages,
        { key: Math.max(0, ...draft.stages.map((stage) => stage.key)) + 1, amount: '100%', soakS: '0' },
      ],
    });
  return (
    <FieldGroup legend={t('create.stages')} hint={t('create.stagesHint')}>
      <ol className="stage-drafts">
        {draft.stages.map((stage, index) => (
          <li key={stage.key} className="stage-draft">
            <span className="stage-draft-number num">{index + 1}</span>
            <TextField
              label={t('create.amount')}
              value={stage.amount}
              onChange={(amount) => edit(stage.key, { amount })}
              error={isAmount(stage.amount) ? null : t('create.amountBad')}
            />
            <TextField
              label={t('create.soak')}
              type="number"
              min={0}
              value={stage.soakS}
              onChange={(soakS) => edit(stage.key, { soakS })}
            />
            <Button
              look="quiet"
              isIcon
              aria-label={t('create.removeStage', { n: index + 1 })}
              isDisabled={draft.stages.length === 1}
              onPress={() => change({ stages: draft.stages.filter((each) => each.key !== stage.key) })}
            >
              <Icon name="close" />
            </Button>
          </li>
        ))}
      </ol>
      <div>
        <Button size="small" onPress={add}>
          <Icon name="plus" size={12} />
          {t('create.addStage')}
        </Button>
      </div>
    </FieldGroup>
  );
}

interface GateLineProps {
  readonly text: string;
  readonly label: string;
  readonly gate: GateDraft;
  readonly onChange: (gate: GateDraft) => void;
}

function GateLine({ text, label, gate, onChange }: GateLineProps) {
  return (
    <div className="gate-draft">
      <Checkbox isSelected={gate.isOn} onChange={(isOn) => onChange({ ...gate, isOn })}>
        {text}
      </Checkbox>
      {gate.isOn && (
        <TextField
          label={label}
          type="number"
          min={0}
          step={0.1}
          value={gate.by}
          onChange={(by) => onChange({ ...gate, by })}
        />
      )}
    </div>
  );
}

function Gates({ draft, change }: PartProps) {
  const { t } = useI18n();
  return (
    <FieldGroup legend={t('create.gates')} hint={t('create.gatesHint')}>
      <GateLine
        text={t('create.gateFailures')}
        label={t('create.failures')}
        gate={draft.failures}
        onChange={(failures) => change({ failures })}
      />
      {(Object.keys(CHOICES) as Choice[]).map((metric) => (
        <GateLine
          key={metric}
          text={t(CHOICES[metric].text)}
          label={`${t('create.by')} (%)`}
          gate={draft.gates[metric]}
          onChange={(gate) => change({ gates: { ...draft.gates, [metric]: gate } })}
        />
      ))}
      <TextField
        label={t('create.minSample')}
        type="number"
        min={1}
        value={draft.minSample}
        onChange={(minSample) => change({ minSample })}
      />
    </FieldGroup>
  );
}

interface CreateProps {
  readonly project: string;
  readonly model: string;
  readonly version: string;
  readonly onClose: () => void;
}

export function CreateRolloutDialog({ project, model, version, onClose }: CreateProps) {
  const { t } = useI18n();
  const navigate = useNavigate();
  const [draft, setDraft] = useState(() => newDraft(model, version));
  const change = (part: Partial<Draft>) => setDraft((before) => ({ ...before, ...part }));
  const models = useModels(project);
  const chosenModel = draft.model || (models.data?.[0]?.model ?? '');
  const releases = useReleases(project, chosenModel);
  const chosen = releases.data?.find((each) => each.version === draft.version) ?? releases.data?.[0];
  const complete: Draft = { ...draft, model: chosenModel, version: chosen?.version ?? '' };
  const create = useCreateRollout(project);
  const dryRun = useDryRun(project);
  const plan = chosen && isValid(complete) ? toPlan(complete, chosen) : null;

  const submit = (event: SubmitEvent) => {
    event.preventDefault();
    if (!plan) return;
    create.mutate(plan, { onSuccess: (rollout) => void navigate(`/p/${project}/rollouts/${rollout}`) });
  };
  return (
    <Dialog title={t('create.title')} isOpen onClose={onClose} width="wide">
      <form onSubmit={submit}>
        <DialogBody>
          <div className="create-pair">
            <Select
              label={t('create.model')}
              options={(models.data ?? []).map((each) => ({ id: each.model, label: each.model }))}
              value={chosenModel}
              onChange={(next) => change({ model: next, version: '' })}
            />
            <Select
              label={t('create.release')}
              options={(releases.data ?? []).map((each) => ({ id: each.version, label: each.version }))}
              value={complete.version}
              onChange={(next) => change({ version: next })}
            />
          </div>
          {models.data?.length === 0 && <p className="field-error">{t('create.noReleases')}</p>}
          <TextField
            label={t('create.target')}
            hint={t('create.targetHint')}
            value={draft.target}
            onChange={(target) => change({ target })}
          />
          <Stages draft={draft} change={change} />
          <Gates draft={draft} change={change} />
          <Select
            label={t('rollout.onFailure')}
            hint={t('create.onFailureHint')}
            options={ON_FAILURE.map((id) => ({ id, label: t(`onFailure.${id}`) }))}
            value={draft.onFailure}
            onChange={(id) => change({ onFailure: ON_FAILURE.find((each) => each === id) ?? 'pause' })}
          />
          <div>
            <Checkbox
              isSelected={draft.needsApproval}
              onChange={(needsApproval) => change({ needsApproval })}
            >
              {t('create.approval')}
            </Checkbox>
            <Checkbox isSelected={draft.isDynamic} onChange={(isDynamic) => change({ isDynamic })}>
              {t('create.dynamic')}
            </Checkbox>
          </div>
          {dryRun.data && <DryRunResult result={dryRun.data} />}
          {(create.error ?? dryRun.error) && (
            <p className="field-error break" role="alert">
              <ErrorText error={create.error ?? dryRun.error} />
            </p>
          )}
        </DialogBody>
        <DialogActions>
          <Button onPress={onClose}>{t('action.cancel')}</Button>
          <Button isDisabled={!plan} isPending={dryRun.isPending} onPress={() => plan && dryRun.mutate(plan)}>
            {t('create.dryRun')}
          </Button>
          <Button type="submit" look="primary" isDisabled={!plan} isPending={create.isPending}>
            {t('create.submit')}
          </Button>
        </DialogActions>
      </form>
    </Dialog>
  );
}
