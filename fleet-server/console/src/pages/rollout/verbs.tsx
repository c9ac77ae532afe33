/** Pause, resume, abort, roll back: each asks first and says what it does. */
import { useState } from 'react';
import { messageOf } from '../../api/errors';
import { useRolloutVerb, VERBS, type RolloutDetail, type Verb } from '../../api/rollouts';
import { useI18n } from '../../i18n/i18n';
import { Button } from '../../ui/button';
import { Confirm } from '../../ui/dialog';
import { Icon, type IconName } from '../../ui/icons';

const ICONS = {
  approve: 'check',
  deny: 'close',
  pause: 'pause',
  resume: 'play',
  retry: 'redo',
  abort: 'stop',
  rollback: 'undo',
} as const satisfies Record<Verb, IconName>;

export function Verbs({ project, rollout }: { readonly project: string; readonly rollout: RolloutDetail }) {
  const { t } = useI18n();
  const [asked, setAsked] = useState<Verb | null>(null);
  const act = useRolloutVerb(project, rollout.rollout);
  const close = () => {
    act.reset();
    setAsked(null);
  };
  return (
    <>
      {VERBS.filter((verb) => rollout.verbs.includes(verb)).map((verb) => (
        <Button
          key={verb}
          look={verb === 'abort' || verb === 'rollback' ? 'danger' : 'secondary'}
          onPress={() => setAsked(verb)}
        >
          <Icon name={ICONS[verb]} />
          {t(`rollout.${verb}`)}
        </Button>
      ))}
      {asked && (
        <Confirm
          title={`${t(`rollout.${asked}`)}: ${rollout.model} ${rollout.release.version}`}
          text={t(`rollout.${asked}Text`)}
          action={t(`rollout.${asked}`)}
          isDangerous={asked === 'abort' || asked === 'rollback'}
          isPending={act.isPending}
          error={messageOf(act.error)}
          onConfirm={() => act.mutate(asked, { onSuccess: close })}
          onClose={close}
        />
      )}
    </>
  );
}
