/** A text that the server shows only once. */
import { useI18n } from '../../i18n/i18n';
import { Button } from '../../ui/button';
import { CopyButton } from '../../ui/copy';
import { Dialog, DialogActions, DialogBody } from '../../ui/dialog';
import { Notice } from '../../ui/states';

interface SecretProps {
  readonly title: string;
  readonly text: string;
  readonly copyLabel: string;
  readonly hint?: string;
  readonly onClose: () => void;
}

export function SecretDialog({ title, text, copyLabel, hint, onClose }: SecretProps) {
  const { t } = useI18n();
  return (
    <Dialog title={title} isOpen onClose={onClose} role="alertdialog" isLastChance>
      <DialogBody>
        <Notice tone="warn" title={t('enrol.once')} />
        {hint !== undefined && <p className="muted">{hint}</p>}
        <code className="secret">{text}</code>
        <div className="row">
          <CopyButton text={text} label={copyLabel} />
        </div>
      </DialogBody>
      <DialogActions>
        <Button look="primary" onPress={onClose}>
          {t('enrol.done')}
        </Button>
      </DialogActions>
    </Dialog>
  );
}
