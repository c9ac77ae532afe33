/** Menus of the top bar: theme, language, account. */
import type { ReactNode } from 'react';
import {
  Button as AriaButton,
  Header,
  Menu,
  MenuItem,
  MenuSection,
  MenuTrigger,
  Popover,
  Separator,
} from 'react-aria-components';
import { useI18n } from '../i18n/i18n';
import { LOCALES, type Locale } from '../i18n/types';
import { chooseTheme, THEMES, useTheme, type Theme } from '../theme/theme';
import { Icon, type IconName } from '../ui/icons';

const THEME_ICONS: Readonly<Record<Theme, IconName>> = { system: 'system', light: 'sun', dark: 'moon' };
const LOCALE_CODES: Readonly<Record<Locale, string>> = { en: 'EN', 'pt-BR': 'PT' };
const LOCALE_NAMES: Readonly<Record<Locale, string>> = { en: 'English', 'pt-BR': 'Português (Brasil)' };

function TopMenu({
  label,
  face,
  children,
}: {
  readonly label: string;
  readonly face: ReactNode;
  readonly children: ReactNode;
}) {
  return (
    <MenuTrigger>
      <AriaButton className="button button-quiet button-normal" aria-label={label}>
        {face}
      </AriaButton>
      <Popover className="popover" placement="bottom end">
        {children}
      </Popover>
    </MenuTrigger>
  );
}

export function ThemeMenu() {
  const { t } = useI18n();
  const theme = useTheme();
  return (
    <TopMenu label={t('theme.title')} face={<Icon name={THEME_ICONS[theme]} />}>
      <Menu
        className="listbox"
        aria-label={t('theme.title')}
        selectionMode="single"
        selectedKeys={[theme]}
        onAction={(key) => chooseTheme(THEMES.find((each) => each === key) ?? 'system')}
      >
        {THEMES.map((each) => (
          <MenuItem key={each} id={each} className="listbox-item" textValue={t(`theme.${each}`)}>
            <span className="row">
              <Icon name={THEME_ICONS[each]} />
              {t(`theme.${each}`)}
            </span>
          </MenuItem>
        ))}
      </Menu>
    </TopMenu>
  );
}

export function LocaleMenu() {
  const { t, locale, chooseLocale } = useI18n();
  return (
    <TopMenu label={`${t('locale.title')}: ${LOCALE_CODES[locale]}`} face={LOCALE_CODES[locale]}>
      <Menu
        className="listbox"
        aria-label={t('locale.title')}
        selectionMode="single"
        selectedKeys={[locale]}
        onAction={(key) => chooseLocale(LOCALES.find((each) => each === key) ?? 'en')}
      >
        {LOCALES.map((each) => (
          <MenuItem key={each} id={each} className="listbox-item" textValue={LOCALE_NAMES[each]}>
            <span lang={each}>{LOCALE_NAMES[each]}</span>
          </MenuItem>
        ))}
      </Menu>
    </TopMenu>
  );
}

interface UserMenuProps {
  readonly name: string;
  readonly onChangePassword: () => void;
  readonly onSignOut: () => void;
}

export function UserMenu({ name, onChangePassword, onSignOut }: UserMenuProps) {
  const { t } = useI18n();
  return (
    <TopMenu label={t('user.menu', { name })} face={<Icon name="person" />}>
      <Menu
        className="listbox"
        aria-label={t('user.menu', { name })}
        onAction={(key) => (key === 'password' ? onChangePassword() : onSignOut())}
      >
        <MenuSection>
          <Header className="menu-header">{name}</Header>
          <MenuItem id="password" className="listbox-item">
            {t('password.change')}
          </MenuItem>
        </MenuSection>
        <Separator className="menu-separator" />
        <MenuItem id="sign-out" className="listbox-item">
          {t('user.signOut')}
        </MenuItem>
      </Menu>
    </TopMenu>
  );
}
