/** A modal dialog: focus is kept inside and goes back where it came from. */
import type { ReactNode } from 'react';
import { Dialog as AriaDialog, Heading, Modal, ModalOverlay } from 'react-aria-components';
import { useI18n } from '../i18n/i18n';
import { useServerText } from '../i18n/server-sentences';
import { Button } from './button';
import { Icon } from './icons';
import './dialog.css';

interface DialogProps {
  readonly title: string;
  readonly isOpen: boolean;
  readonly onClose: () => void;
  /** `alertdialog` for questions that stop the person. */
  readonly role?: 'dialog' | 'alertdialog';
  readonly width?: 'normal' | 'wide';
  /** Shows what is gone when it closes: no slip of a key may close it. */
  readonly isLastChance?: boolean;
  readonly children: ReactNode;
}

export function Dialog(props: DialogProps) {
  const { title, isOpen, onClose, role = 'dialog', width = 'normal', isLastChance = false, children } = props;
  const { t } = useI18n();
  return (
    <ModalOverlay
      className="dialog-backdrop"
      isOpen={isOpen}
      onOpenChange={(open) => {
        if (!open) onClose();
      }}
      isDismissable={role === 'dialog'}
      isKeyboardDismissDisabled={isLastChance}
    >
      <Modal className={`dialog dialog-${width}`}>
        <AriaDialog role={role} className="dialog-inner">
          <header className="dialog-header">
            <Heading slot="title" className="dialog-title">
              {title}
            </Heading>
            <Button look="quiet" isIcon aria-label={t('action.close')} onPress={onClose}>
              <Icon name="close" />
            </Button>
          </header>
          {children}
        </AriaDialog>
      </Modal>
    </ModalOverlay>
  );
}

export function DialogBody({ children }: { readonly children: ReactNode }) {
  return <div className="dialog-body">{children}</div>;
}

export function DialogActions({ children }: { readonly children: ReactNode }) {
  return <footer className="dialog-actions">{children}</footer>;
}

interface FormDialogProps {
  readonly title: string;
  /** On the button that submits. */
  readonly action: string;
  readonly isPending: boolean;
  readonly error: string | null;
  readonly onSubmit: () => void;
  readonly onClose: () => void;
  /** The fields. */
  readonly children: ReactNode;
}

/** A form that makes something: fields, what went wrong, and the way on. Mounted while open. */
export function FormDialog({
  title,
  action,
  isPending,
  error,
  onSubmit,
  onClose,
  children,
}: FormDialogProps) {
  const { t } = useI18n();
  const server = useServerText();
  return (
    <Dialog title={title} isOpen onClose={onClose}>
      <form
        onSubmit={(event) => {
          event.preventDefault();
          onSubmit();
        }}
      >
        <DialogBody>
          {children}
          {error !== null && (
            <p className="field-error" role="alert">
              {server.sentence(error)}
            </p>
          )}
        </DialogBody>
        <DialogActions>
          <Button onPress={onClose}>{t('action.cancel')}</Button>
          <Button type="submit" look="primary" isPending={isPending}>
            {action}
          </Button>
        </DialogActions>
      </form>
    </Dialog>
  );
}

interface ConfirmProps {
  readonly title: string;
  readonly text: string;
  readonly action: string;
  readonly isDangerous?: boolean;
  readonly isPending: boolean;
  readonly error: string | null;
  readonly onConfirm: () => void;
  readonly onClose: () => void;
}

/** "Do you really want to": says what will happen, in words, before it does. Mounted while open. */
export function Confirm({
  title,
  text,
  action,
  isDangerous = false,
  isPending,
  error,
  onConfirm,
  onClose,
}: ConfirmProps) {
  const { t } = useI18n();
  const server = useServerText();
  return (
    <Dialog title={title} isOpen onClose={onClose} role="alertdialog">
      <DialogBody>
        <p>{text}</p>
        {error !== null && (
          <p className="field-error" role="alert">
            {server.sentence(error)}
          </p>
        )}
      </DialogBody>
      <DialogActions>
        <Button onPress={onClose} autoFocus>
          {t('action.cancel')}
        </Button>
        <Button look={isDangerous ? 'danger' : 'primary'} isPending={isPending} onPress={onConfirm}>
          {action}
        </Button>
      </DialogActions>
    </Dialog>
  );
}
