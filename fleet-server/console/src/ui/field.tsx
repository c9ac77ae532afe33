/** Form fields: label above, hint and error below, all tied together for screen readers. */
import { useId, type ReactNode } from 'react';
import {
  Button as AriaButton,
  CheckboxButton,
  CheckboxField,
  FieldError,
  Input,
  Label,
  ListBox,
  ListBoxItem,
  Popover,
  SearchField as AriaSearchField,
  Select as AriaSelect,
  SelectValue,
  Text,
  TextArea,
  TextField as AriaTextField,
  type Key,
} from 'react-aria-components';
import { useI18n } from '../i18n/i18n';
import { Icon } from './icons';
import './field.css';

interface TextFieldProps {
  readonly label: string;
  readonly value: string;
  readonly onChange: (value: string) => void;
  readonly type?: 'text' | 'password' | 'number' | 'datetime-local';
  readonly hint?: string;
  readonly error?: string | null;
  readonly autoComplete?: string;
  readonly isRequired?: boolean;
  readonly isMultiline?: boolean;
  readonly autoFocus?: boolean;
  readonly min?: number;
  readonly max?: number;
  readonly step?: number;
  readonly name?: string;
}

export function TextField(props: TextFieldProps) {
  const {
    label,
    value,
    onChange,
    type = 'text',
    hint,
    error,
    isMultiline = false,
    min,
    max,
    step,
    ...rest
  } = props;
  const hasError = error !== undefined && error !== null;
  return (
    <AriaTextField
      {...rest}
      className="field"
      type={type}
      value={value}
      onChange={onChange}
      isInvalid={hasError}
    >
      <Label className="field-label">{label}</Label>
      {isMultiline ? (
        <TextArea className="field-input" rows={4} />
      ) : (
        <Input className="field-input" min={min} max={max} step={step} />
      )}
      {hint !== undefined && (
        <Text slot="description" className="field-hint">
          {hint}
        </Text>
      )}
      <FieldError className="field-error">{error}</FieldError>
    </AriaTextField>
  );
}

export function SearchField({
  label,
  value,
  onChange,
  placeholder,
}: {
  readonly label: string;
  readonly value: string;
  readonly onChange: (value: string) => void;
  readonly placeholder?: string;
}) {
  const { t } = useI18n();
  return (
    <AriaSearchField className="field field-search" value={value} onChange={onChange}>
      <Label className="field-label">{label}</Label>
      <div className="field-search-box">
        <Input className="field-input" placeholder={placeholder ?? ''} />
        {value !== '' && (
          <AriaButton className="field-clear" aria-label={t('action.clear')}>
            <Icon name="close" size={12} />
          </AriaButton>
        )}
      </div>
    </AriaSearchField>
  );
}

export interface Option {
  readonly id: string;
  readonly label: string;
}

interface SelectProps {
  readonly label: string;
  readonly options: readonly Option[];
  readonly value: string;
  readonly onChange: (value: string) => void;
  readonly hint?: string;
  readonly isLabelHidden?: boolean;
  readonly isDisabled?: boolean;
}

export function Select({
  label,
  options,
  value,
  onChange,
  hint,
  isLabelHidden = false,
  isDisabled = false,
}: SelectProps) {
  const { t } = useI18n();
  const choose = (key: Key | null) => {
    if (key !== null) onChange(String(key));
  };
  return (
    <AriaSelect
      className="field"
      value={value}
      onChange={choose}
      isDisabled={isDisabled}
      placeholder={t('field.choose')}
    >
      <Label className={isLabelHidden ? 'visually-hidden' : 'field-label'}>{label}</Label>
      <AriaButton className="field-input field-select">
        <SelectValue />
        <Icon name="chevron" size={14} />
      </AriaButton>
      {hint !== undefined && (
        <Text slot="description" className="field-hint">
          {hint}
        </Text>
      )}
      <Popover className="popover">
        <ListBox className="listbox" items={options}>
          {(option) => (
            <ListBoxItem id={option.id} textValue={option.label} className="listbox-item">
              {option.label}
            </ListBoxItem>
          )}
        </ListBox>
      </Popover>
    </AriaSelect>
  );
}

export function Checkbox({
  children,
  isSelected,
  onChange,
}: {
  readonly children: ReactNode;
  readonly isSelected: boolean;
  readonly onChange: (isSelected: boolean) => void;
}) {
  return (
    <CheckboxField isSelected={isSelected} onChange={onChange}>
      <CheckboxButton className="checkbox">
        <span className="checkbox-box" aria-hidden="true">
          {isSelected && <Icon name="check" size={12} />}
        </span>
        {children}
      </CheckboxButton>
    </CheckboxField>
  );
}

interface FieldGroupProps {
  readonly legend: string;
  readonly hint?: string;
  readonly children: ReactNode;
}

/** Fields that belong together, under one name. */
export function FieldGroup({ legend, hint, children }: FieldGroupProps) {
  const id = useId();
  const hintId = useId();
  return (
    <div
      role="group"
      aria-labelledby={id}
      aria-describedby={hint === undefined ? undefined : hintId}
      className="field-group"
    >
      <h3 id={id}>{legend}</h3>
      {hint !== undefined && (
        <p id={hintId} className="field-hint">
          {hint}
        </p>
      )}
      {children}
    </div>
  );
}
