/** What a user may do: a role everywhere, one in each project, and whether they may sign in at all. */
import { useState } from 'react';
import { messageOf } from '../../api/errors';
import { ROLES } from '../../api/session';
import { useChangeUser, type Grant, type User } from '../../api/users';
import { useI18n } from '../../i18n/i18n';
import { FormDialog } from '../../ui/dialog';
import { Checkbox, Select } from '../../ui/field';

const EVERYWHERE = '*';
const NO_ROLE = 'none';

interface RightsProps {
  readonly user: User;
  readonly project: string;
  readonly onClose: () => void;
}

export function RightsDialog({ user, project, onClose }: RightsProps) {
  const { t } = useI18n();
  const change = useChangeUser();
  const [isDisabled, setDisabled] = useState(user.is_disabled);
  const [roles, setRoles] = useState<ReadonlyMap<string, string>>(
    () => new Map(user.grants.map((grant) => [grant.project, grant.role])),
  );
  const scopes = [...new Set([EVERYWHERE, project, ...roles.keys()])];
  const submit = () => {
    const grants: Grant[] = scopes.flatMap((scope) => {
      const role = ROLES.find((each) => each === roles.get(scope));
      return role ? [{ project: scope, role }] : [];
    });
    change.mutate({ username: user.username, grants, isDisabled }, { onSuccess: onClose });
  };
  return (
    <FormDialog
      title={`${t('users.rights')}: ${user.username}`}
      action={t('action.save')}
      isPending={change.isPending}
      error={messageOf(change.error)}
      onSubmit={submit}
      onClose={onClose}
    >
      {scopes.map((scope) => (
        <Select
          key={scope}
          label={scope === EVERYWHERE ? t('users.allProjects') : scope}
          options={[
            { id: NO_ROLE, label: t('users.noRole') },
            ...ROLES.map((id) => ({ id, label: t(`role.${id}`) })),
          ]}
          value={roles.get(scope) ?? NO_ROLE}
          onChange={(role) => setRoles(new Map(roles).set(scope, role))}
        />
      ))}
      <Checkbox isSelected={isDisabled} onChange={setDisabled}>
        {t('users.disable')}
      </Checkbox>
    </FormDialog>
  );
}
