/** What an operator can do to one device. */
import { useState, type SubmitEvent } from 'react';
import { useNavigate } from 'react-router';
import {
  useDecommission,
  useDeviceCommand,
  useChangeLabels,
  type Command,
  type DeviceDetail,
} from '../../api/devices';
import { messageOf } from '../../api/errors';
import { useI18n } from '../../i18n/i18n';
import { Button } from '../../ui/button';
import { Confirm, Dialog, DialogActions, DialogBody } from '../../ui/dialog';
import { TextField } from '../../ui/field';
import { formatLabels, labelChanges, parseLabels } from '../../ui/labels';
import { ErrorText } from '../../ui/states';

const LOG_LINES = 500;

interface ActionsProps {
  readonly project: string;
  readonly device: DeviceDetail;
}

export function DeviceActions({ project, device }: ActionsProps) {
  const { t } = useI18n();
  const [asked, setAsked] = useState<'labels' | 'remove' | null>(null);
  const command = useDeviceCommand(project, device.device);
  const names: Readonly<Record<Command['type'], string>> = {
    refresh: t('device.refresh'),
    collect_logs: t('device.collectLogs'),
    flush_panes: t('device.flush'),
    measure: t('measured.title'),
  };
  const model = device.models[0]?.model;
  return (
    <>
      <span className="small" role="status">
        {command.error && (
          <span className="field-error">
            <ErrorText error={command.error} />
          </span>
        )}
        {command.isSuccess && (
          <span className="muted">{t('device.commandSent', { name: names[command.variables.type] })}</span>
        )}
      </span>
      <Button onPress={() => command.mutate({ type: 'refresh' })}>{names.refresh}</Button>
      <Button onPress={() => command.mutate({ type: 'collect_logs', max_lines: LOG_LINES })}>
        {names.collect_logs}
      </Button>
      {model !== undefined && (
        <Button onPress={() => command.mutate({ type: 'flush_panes', model })}>{names.flush_panes}</Button>
      )}
      <Button onPress={() => setAsked('labels')}>{t('device.editLabels')}</Button>
      <Button look="danger" onPress={() => setAsked('remove')}>
        {t('device.remove')}
      </Button>
      {asked === 'labels' && (
        <LabelsDialog project={project} device={device} onClose={() => setAsked(null)} />
      )}
      {asked === 'remove' && (
        <RemoveDialog project={project} device={device} onClose={() => setAsked(null)} />
      )}
    </>
  );
}

function LabelsDialog({ project, device, onClose }: ActionsProps & { readonly onClose: () => void }) {
  const { t } = useI18n();
  const [before] = useState(device.server_labels);
  const [text, setText] = useState(formatLabels(before));
  const save = useChangeLabels(project, device.device);
  const parsed = parseLabels(text);
  const submit = (event: SubmitEvent) => {
    event.preventDefault();
    if ('labels' in parsed) save.mutate(labelChanges(before, parsed.labels), { onSuccess: onClose });
  };
  return (
    <Dialog title={`${t('device.editLabels')}: ${device.device}`} isOpen onClose={onClose}>
      <form onSubmit={submit}>
        <DialogBody>
          <TextField
            label={t('device.labels')}
            hint={t('device.labelsHint')}
            value={text}
            onChange={setText}
            isMultiline
            autoFocus
            error={'badLine' in parsed ? t('device.labelsBad', { n: parsed.badLine }) : messageOf(save.error)}
          />
        </DialogBody>
        <DialogActions>
          <Button onPress={onClose}>{t('action.cancel')}</Button>
          <Button type="submit" look="primary" isPending={save.isPending} isDisabled={'badLine' in parsed}>
            {t('action.save')}
          </Button>
        </DialogActions>
      </form>
    </Dialog>
  );
}

function RemoveDialog({ project, device, onClose }: ActionsProps & { readonly onClose: () => void }) {
  const { t } = useI18n();
  const navigate = useNavigate();
  const remove = useDecommission(project, device.device);
  return (
    <Confirm
      title={`${t('device.remove')}: ${device.device}`}
      text={t('device.removeText', { name: device.device })}
      action={t('device.remove')}
      isDangerous
      isPending={remove.isPending}
      error={messageOf(remove.error)}
      onConfirm={() => remove.mutate(undefined, { onSuccess: () => void navigate(`/p/${project}/devices`) })}
      onClose={onClose}
    />
  );
}
