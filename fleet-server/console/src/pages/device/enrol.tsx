/** Makes a one-time enrolment token and shows its text exactly once. */
import { useState } from 'react';
import { useCreateEnrolmentToken } from '../../api/enrolment';
import { messageOf } from '../../api/errors';
import { useI18n } from '../../i18n/i18n';
import { Button } from '../../ui/button';
import { CopyButton } from '../../ui/copy';
import { Dialog, DialogActions, DialogBody, FormDialog } from '../../ui/dialog';
import { Select, TextField } from '../../ui/field';
import { parseLabels } from '../../ui/labels';
import { Notice } from '../../ui/states';
import { AbsoluteTime } from '../../ui/time';
import './enrol.css';

const HOURS = ['1', '24', '168', '720'] as const;

interface EnrolProps {
  readonly project: string;
  readonly onClose: () => void;
}

export function EnrolDialog({ project, onClose }: EnrolProps) {
  const { t } = useI18n();
  const create = useCreateEnrolmentToken(project);
  const [device, setDevice] = useState('');
  const [labels, setLabels] = useState('');
  const [hours, setHours] = useState<string>('24');
  const parsed = parseLabels(labels);

  if (create.data)
    return <TokenOnce text={create.data.text} expires={create.data.token.expires_at} onClose={onClose} />;
  const submit = () => {
    if ('badLine' in parsed) return;
    create.mutate({ device: device.trim(), labels: parsed.labels, lifetimeS: Number(hours) * 3_600 });
  };
  return (
    <FormDialog
      title={t('enrol.title')}
      action={t('enrol.submit')}
      isPending={create.isPending}
      error={messageOf(create.error)}
      onSubmit={submit}
      onClose={onClose}
    >
      <p className="muted">{t('enrol.intro')}</p>
      <TextField
        label={t('enrol.device')}
        hint={t('enrol.deviceHint')}
        value={device}
        onChange={setDevice}
        autoFocus
      />
      <TextField
        label={t('enrol.labels')}
        hint={t('device.labelsHint')}
        value={labels}
        onChange={setLabels}
        isMultiline
        error={'badLine' in parsed ? t('device.labelsBad', { n: parsed.badLine }) : null}
      />
      <Select
        label={t('enrol.expires')}
        options={HOURS.map((id) => ({ id, label: t(`enrol.hours.${id}`) }))}
        value={hours}
        onChange={setHours}
      />
    </FormDialog>
  );
}

interface OnceProps {
  readonly text: string;
  readonly expires: string;
  readonly onClose: () => void;
}

function TokenOnce({ text, expires, onClose }: OnceProps) {
  const { t } = useI18n();
  return (
    <Dialog title={t('enrol.title')} isOpen onClose={onClose} role="alertdialog">
      <DialogBody>
        <Notice tone="warn" title={t('enrol.once')} />
        <div className="stack">
          <h3>{t('enrol.text')}</h3>
          <code className="secret">{text}</code>
          <div className="row">
            <CopyButton text={text} label={t('enrol.copy')} />
          </div>
        </div>
        <div className="stack">
          <p>{t('enrol.onceHint')}</p>
          <code className="secret">flotilla-agent enroll --token {text}</code>
        </div>
        <p className="muted small">
          {t('tokens.expires')}: <AbsoluteTime at={expires} />
        </p>
      </DialogBody>
      <DialogActions>
        <Button look="primary" onPress={onClose}>
          {t('enrol.done')}
        </Button>
      </DialogActions>
    </Dialog>
  );
}
