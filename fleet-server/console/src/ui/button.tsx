/** Buttons and links that look like buttons. One primary action per view. */
import type { ComponentPropsWithoutRef } from 'react';
import { Button as AriaButton, type ButtonProps as AriaButtonProps } from 'react-aria-components';
import { Link, type LinkProps } from 'react-router';
import './button.css';

type Look = 'primary' | 'secondary' | 'quiet' | 'danger';

export interface ButtonProps extends Omit<AriaButtonProps, 'className' | 'style'> {
  readonly look?: Look;
  readonly size?: 'normal' | 'small';
  /** Square, for a single icon: needs an aria-label. */
  readonly isIcon?: boolean;
}

export function Button({ look = 'secondary', size = 'normal', isIcon = false, ...rest }: ButtonProps) {
  return (
    <AriaButton {...rest} className={`button button-${look} button-${size}${isIcon ? ' button-icon' : ''}`} />
  );
}

export function ButtonLink({ look = 'secondary', ...rest }: LinkProps & { readonly look?: Look }) {
  return <Link {...rest} className={`button button-${look} button-normal`} />;
}

/** For files that the server sends: a real link, so that the browser downloads it. */
export function ButtonAnchor(props: ComponentPropsWithoutRef<'a'>) {
  const { children, ...rest } = props;
  return (
    <a {...rest} className="button button-secondary button-normal">
      {children}
    </a>
  );
}
